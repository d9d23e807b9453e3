"""Finetuning a correlation head on one's own video, measured on pairs that are held back."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub._durable import need_folder
from midway_hub.adaptation.losses import photometric, smoothness
from midway_hub.dense.propagated_files import open_frames
from midway_hub.drawing import strip
from midway_hub.flow_io import flow_picture
from midway_hub.models.correlation.head import STRIDE, CorrelationHead
from midway_hub.models.network import MidwayNetwork
from midway_hub.models.occlusion import occluded
from midway_hub.processing import Normalisation

RECORD, PICTURE = "adaptation.json", "adaptation.png"
MOST_PAIRS = 50
HELD_BACK = 5
CROP = (192, 256)
MEASURED = 10
SHORT_SIDE = 384
GAMMA = 0.8

Progress = Callable[[str, int, int], None]


class NotBetterError(ValueError):
    """Adaptation did not lower the error on pairs that were held back; nothing was written."""


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Attributes:
        out: Folder of the adapted network.
        before: Photometric error on pairs that were held back, by the network as it was.
        after: By the best network on the way.
        steps: Steps taken.
        best_step: Step of the best network.
        seconds: Time taken.
        pairs: Pairs trained on.
        held_back: Pairs held back.
        interrupted: Whether it was stopped early.
    """

    out: str
    before: float
    after: float
    steps: int
    best_step: int
    seconds: float
    pairs: int
    held_back: int
    interrupted: bool

    @property
    def fell_by(self) -> float:
        """Share by which the error fell."""
        return 1 - self.after / self.before


@dataclass(frozen=True)
class Pair:
    """Two frames as the network sees them, and in [0, 1]; (1, 3, H, W) each."""

    seen: tuple[Tensor, Tensor]
    pixels: tuple[Tensor, Tensor]


def adapt_flow(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path,
    *,
    minutes: float = 3.0,
    steps: int | None = None,
    every: int = 1,
    size: int | None = None,
    reader: str = "auto",
    lr: float = 5e-5,
    smooth: float = 2.0,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Adaptation:
    """Finetune the flow head on pairs of a video by how well flow explains the frames, and keep it if that helps.

    Nothing but the head is trained. Every fifth pair is held back; what the start network calls occluded there is left
    out, so that no network wins by calling more so. Photometric error is no end-point error: see that the picture in
    the folder is right.

    Args:
        net: A network with a correlation head; it stays as it is.
        video: A video file, or a folder of pictures named by their numbers.
        out: Folder to write, new or empty: weights, configuration, `adaptation.json`, and a picture of a pair that was
            held back, before and after.
        minutes: How long to train; reading and measuring come on top.
        steps: How many steps instead.
        every: Frames from the first of a pair to the second.
        size: Short side in pixels that frames are seen at; default: their own, but at most 384.
        reader: Video reader, or "auto".
        lr: Learning rate of Adam.
        smooth: Weight of the smoothness.
        seed: Of the pairs and crops that are drawn.
        progress: Called with what is being done, and how much of it.

    Returns:
        What came of it. Ctrl-C ends it early with the best network so far.

    Raises:
        NotBetterError: The error on pairs that were held back did not fall.
        MissingHeadError: The network has no flow head.
        ValueError: It is of another kind, or the video has fewer than six pairs of frames.
        FileExistsError: `out` holds files.
        VideoError: The video cannot be read.
        OSError: A file cannot be written.
    """
    net.require_flow_head()
    if not isinstance(net.flow_head, CorrelationHead):
        raise ValueError("adaptation is of correlation heads; this checkpoint's flow head is of kind 'dpt'")
    if (steps is None and not minutes > 0) or (steps is not None and steps < 1):
        raise ValueError(f"minutes must be positive and steps at least 1, got {minutes} and {steps}")
    if type(every) is not int or every < 1:
        raise ValueError(f"every must be a whole number of at least 1, got {every!r}")
    folder = _empty_folder(Path(out))
    pairs = read_pairs(net, video, every=every, size=size, reader=reader, progress=progress)
    held, trained = pairs[::HELD_BACK], [pair for index, pair in enumerate(pairs) if index % HELD_BACK]
    masks = [_visible(net, pair) for pair in held]
    before = held_error(net, held, masks)
    run = _Run(copy.deepcopy(net), trained, held, masks, lr, smooth, seed)
    run.best = (before, 0, run.weights())
    run.train(minutes, steps, progress)
    after, best_step, weights = run.best
    if best_step == 0:
        raise NotBetterError(
            f"after {run.step} steps the photometric error on {len(held)} pairs that were held back is not below "
            f"{before:.4f}, which it was before: nothing is saved. Take more --minutes, a lower --lr, or keep the "
            "checkpoint as it is"
        )
    run.net.flow_head.load_state_dict(weights)
    found = Adaptation(
        str(folder), before, after, run.step, best_step, run.seconds, len(trained), len(held), run.interrupted
    )
    _save(net, run.net.eval(), held[len(held) // 2], found, Path(video), folder)
    return found


def read_pairs(
    net: MidwayNetwork, video: str | Path, *, every: int, size: int | None, reader: str, progress: Progress
) -> list[Pair]:
    """Read at most 50 pairs, spread over a video, as the network sees them."""
    with open_frames(video, start=0, every=1, reader=reader) as clip:
        count = len(clip.names) - every
        if count < HELD_BACK + 1:
            raise ValueError(
                f"{video} has {max(count, 0)} pairs of frames {every} apart; adaptation needs {HELD_BACK + 1} at least"
            )
        wanted = {int(index) for index in np.linspace(0, count - 1, min(MOST_PAIRS, count)).round()}
        kept: dict[int, Tensor] = {}
        needed = wanted | {index + every for index in wanted}
        for index, frame in enumerate(clip.frames):
            if index in needed:
                kept[index] = _input(net, frame, size)
                progress("reading", index + 1, len(clip.names))
    numbers = net.image_processor.normalisation
    return [
        Pair((kept[index], kept[index + every]), (_pixels(kept[index], numbers), _pixels(kept[index + every], numbers)))
        for index in sorted(wanted)
    ]


@torch.no_grad()
def held_error(net: MidwayNetwork, pairs: Sequence[Pair], visible: Sequence[Tensor]) -> float:
    """Return the mean photometric error of pairs, each over what of it is visible."""
    errors = [
        photometric(*pair.pixels, net.flow(*pair.seen).flow.to(pair.pixels[0]), mask)
        for pair, mask in zip(pairs, visible, strict=True)
    ]
    return float(torch.stack(errors).mean())


class _Run:
    """The training: random crops of random pairs, measured ten times on the way."""

    def __init__(
        self,
        net: MidwayNetwork,
        trained: Sequence[Pair],
        held: Sequence[Pair],
        masks: Sequence[Tensor],
        lr: float,
        smooth: float,
        seed: int,
    ) -> None:
        self.net, self._trained, self._held, self._masks, self._smooth = net.eval(), trained, held, masks, smooth
        net.requires_grad_(False)
        net.flow_head.requires_grad_(True)
        self._optimizer = torch.optim.Adam(net.flow_head.parameters(), lr=lr)
        self._draw = np.random.default_rng(seed)
        self.best: tuple[float, int, dict[str, Tensor]] = (float("inf"), 0, {})
        self.step, self.seconds, self.interrupted = 0, 0.0, False

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the head's weights."""
        return {name: value.detach().clone() for name, value in self.net.flow_head.state_dict().items()}

    def train(self, minutes: float, steps: int | None, progress: Progress) -> None:
        """Train for some steps, or minutes; Ctrl-C ends it."""
        started, measured = time.monotonic(), 0
        try:
            for share in self._shares(started, minutes, steps):
                self._one_step()
                self.step += 1
                progress("adapting", round(1000 * share), 1000)
                if int(share * MEASURED) > measured or share >= 1:
                    measured = int(share * MEASURED)
                    self._measure()
        except KeyboardInterrupt:
            self.interrupted = True
            with contextlib.suppress(KeyboardInterrupt):  # pressed again: the best so far is kept all the same
                self._measure()
        self.seconds = round(time.monotonic() - started, 1)

    def _shares(self, started: float, minutes: float, steps: int | None) -> Iterator[float]:
        """Yield how much is done after the step that follows, up to 1."""
        share = 0.0
        while share < 1:
            if steps is not None:
                share = (self.step + 1) / steps
            else:
                share = min(1.0, (time.monotonic() - started) / (60 * minutes))
            yield share

    def _one_step(self) -> None:
        pair = self._trained[int(self._draw.integers(len(self._trained)))]
        if self._draw.random() < 0.5:
            pair = Pair(pair.seen[::-1], pair.pixels[::-1])
        pair = _cropped(pair, self._draw)
        flow, weighted = self._estimates(pair)
        with torch.no_grad():
            back, _, _ = self.net.flow_sequence(pair.seen[1], pair.seen[0])
            visible = ~occluded(flow[-1], back.fine[-1][:, :2])
        loss = sum(
            weight * (photometric(*pair.pixels, each, visible) + self._smooth * smoothness(pair.pixels[0], each))
            for each, weight in zip(flow, weighted, strict=True)
        )
        assert isinstance(loss, Tensor)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.flow_head.parameters(), 1.0)
        if torch.isfinite(loss):
            self._optimizer.step()

    def _estimates(self, pair: Pair) -> tuple[list[Tensor], list[float]]:
        """The last update's flow at the frames' size and those of the refinements, and how much each counts."""
        sequence, _, _ = self.net.flow_sequence(*pair.seen)
        flows = [estimate[:, :2] for estimate in sequence.fine]
        return flows, [GAMMA ** (len(flows) - 1 - index) for index in range(len(flows))]

    def _measure(self) -> None:
        error = held_error(self.net, self._held, self._masks)
        if error < self.best[0]:
            self.best = (error, self.step, self.weights())


def _visible(net: MidwayNetwork, pair: Pair) -> Tensor:
    with torch.no_grad():
        found = net.flow(*pair.seen, both=True)
    assert found.occluded is not None
    return ~found.occluded


def _input(net: MidwayNetwork, frame: np.ndarray, size: int | None) -> Tensor:
    side = min(SHORT_SIDE, *frame.shape[:2]) if size is None else size
    processor = net.image_processor.with_short_side(side, multiple=1)
    seen = processor([frame])["pixel_values"].to(net.device, net.dtype)
    height, width = (length // STRIDE * STRIDE for length in seen.shape[-2:])
    if min(height, width) < 2 * STRIDE:
        raise ValueError(
            f"frames of {seen.shape[-2]}×{seen.shape[-1]} pixels are too small to adapt to; wanted 16 at least"
        )
    return seen[..., :height, :width]


def _pixels(seen: Tensor, numbers: Normalisation) -> Tensor:
    mean, std = (seen.new_tensor(values).view(1, 3, 1, 1) for values in (numbers.mean, numbers.std))
    return (seen * std + mean).float().clamp(0, 1)


def _cropped(pair: Pair, draw: np.random.Generator) -> Pair:
    height, width = pair.seen[0].shape[-2:]
    tall, wide = min(CROP[0], height), min(CROP[1], width)
    top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
    cut = (..., slice(top, top + tall), slice(left, left + wide))
    return Pair((pair.seen[0][cut], pair.seen[1][cut]), (pair.pixels[0][cut], pair.pixels[1][cut]))


def _empty_folder(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; choose another folder or remove it first")
    need_folder(folder)
    return folder


def _save(
    before: MidwayNetwork, after: MidwayNetwork, pair: Pair, found: Adaptation, video: Path, folder: Path
) -> None:
    after.save_pretrained(folder)
    report = before.load_report
    facts: dict[str, Any] = {
        **asdict(found),
        "fell_by": round(found.fell_by, 4),
        "video": video.name,
        "from": report.source if report else "in memory",
        "sha256": dict(report.sha256) if report else {},
    }
    (folder / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    with torch.no_grad():
        flows = [net.flow(*pair.seen).flow[0].movedim(0, -1).float().cpu().numpy() for net in (before, after)]
    largest = max(1.0, *(float(np.quantile(np.linalg.norm(flow, axis=-1), 0.99)) for flow in flows))
    frames = [Image.fromarray((255 * each[0].movedim(0, -1)).round().byte().cpu().numpy()) for each in pair.pixels]
    drawn = [flow_picture(flow, largest=largest) for flow in flows]
    named = zip(("frame", "next", "flow before", "flow after"), (*frames, *drawn), strict=True)
    strip(list(named)).save(folder / PICTURE)
