"""Finetuning a correlation head on one's own video, measured on pairs that are held back."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub._durable import need_empty, need_folder
from midway_hub.adaptation.losses import photometric, smoothness
from midway_hub.adaptation.pairs import Pair, read_pairs
from midway_hub.dense.estimates import as_pixels
from midway_hub.dense.flow_files import common_scale
from midway_hub.dense.writing import Progress, no_progress
from midway_hub.drawing import strip
from midway_hub.flow_io import flow_picture
from midway_hub.models.correlation.head import CorrelationHead
from midway_hub.models.network import MidwayNetwork
from midway_hub.models.occlusion import occluded

RECORD, PICTURE = "adaptation.json", "adaptation.png"
HELD_BACK = 5
MEASURED = 10
GAMMA = 0.8


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
    progress: Progress = no_progress,
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
    folder = Path(out)
    need_empty(folder)
    need_folder(folder)
    pairs = read_pairs(net, video, every=every, size=size, reader=reader, progress=progress)
    held, trained = pairs[::HELD_BACK], [pair for index, pair in enumerate(pairs) if index % HELD_BACK]
    run = _Run(copy.deepcopy(net), trained, held, lr, smooth, seed)
    before = run.best[0]
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
        lr: float,
        smooth: float,
        seed: int,
    ) -> None:
        self.net, self._trained, self._held, self._smooth = net.eval(), trained, held, smooth
        self._masks = [_visible(net, pair) for pair in held]
        net.requires_grad_(False)
        net.flow_head.requires_grad_(True)
        self._optimizer = torch.optim.Adam(net.flow_head.parameters(), lr=lr)
        self._draw = np.random.default_rng(seed)
        self.best = (held_error(net, held, self._masks), 0, self._weights())
        self.step, self.seconds, self.interrupted = 0, 0.0, False

    def _weights(self) -> dict[str, Tensor]:
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
            pair = pair.swapped()
        pair = pair.cropped(self._draw)
        sequence, _, _ = self.net.flow_sequence(*pair.seen)
        flows = [estimate[:, :2] for estimate in sequence.fine]
        with torch.no_grad():
            back, _, _ = self.net.flow_sequence(*pair.swapped().seen)
            visible = ~occluded(flows[-1], back.fine[-1][:, :2])
        errors = [
            photometric(*pair.pixels, each, visible) + self._smooth * smoothness(pair.pixels[0], each) for each in flows
        ]
        loss = torch.stack([GAMMA ** (len(flows) - 1 - index) * error for index, error in enumerate(errors)]).sum()
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.flow_head.parameters(), 1.0)
        if torch.isfinite(loss):
            self._optimizer.step()

    def _measure(self) -> None:
        error = held_error(self.net, self._held, self._masks)
        if error < self.best[0]:
            self.best = (error, self.step, self._weights())


def _visible(net: MidwayNetwork, pair: Pair) -> Tensor:
    with torch.no_grad():
        found = net.flow(*pair.seen, both=True)
    assert found.occluded is not None
    return ~found.occluded


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
    largest = common_scale(flows)
    frames = [Image.fromarray(as_pixels(each[0].cpu())) for each in pair.pixels]
    drawn = [flow_picture(flow, largest=largest) for flow in flows]
    named = zip(("frame", "next", "flow before", "flow after"), (*frames, *drawn), strict=True)
    strip(list(named)).save(folder / PICTURE)
