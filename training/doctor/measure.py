"""Timing the parts of a run on real data: reading, views, and the step itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.clip import Clip, ClipSource, SampleError
from midway_hub.training.data.flow_provider import FlowAsked
from midway_hub.training.data.needs import Needs
from midway_hub.training.data.views import apply_views, apply_views_batched, draw_views

ENOUGH = 5.0
"""Seconds after which a measurement has seen enough."""

_SEED = 20_251_005


class NothingToMeasureError(RuntimeError):
    """No item of the data could be read."""


def measure_reading(source: ClipSource, *, pairs_per_visit: int, seconds: float = ENOUGH) -> tuple[float, list[Clip]]:
    """Time reading random items of a source in this process, on one core.

    Args:
        source: The data.
        pairs_per_visit: Pairs taken each time an item is opened.
        seconds: After how long to stop; at least one item is read.

    Returns:
        Seconds per pair, and the pairs of the last item for the other measurements.

    Raises:
        NothingToMeasureError: Every item that was tried is unreadable; the message has the first reason.
    """
    order = np.random.default_rng(_SEED).permutation(len(source))
    reasons, count, spent, pairs = [], 0, 0.0, []
    for number, index in enumerate(order):
        start = time.perf_counter()
        try:
            pairs = source.clips(int(index), pairs_per_visit, np.random.default_rng((_SEED, number)))
            count += len(pairs)
            spent += time.perf_counter() - start
        except SampleError as error:
            reasons.append(str(error))
        if spent > seconds or (not pairs and len(reasons) >= 20):
            break
    if not pairs:
        raise NothingToMeasureError(f"{len(reasons)} of {len(source)} items were tried, none can be read: {reasons[0]}")
    return spent / count, pairs


def measure_readers(
    make_source: Callable[[str], ClipSource],
    readers: Collection[str],
    *,
    pairs_per_visit: int,
    seconds: float = ENOUGH,
) -> dict[str, float | str]:
    """Time each video reader on the same files.

    Args:
        make_source: Builds the data source with a reader.
        readers: Names of readers.
        pairs_per_visit: Pairs taken each time a file is opened.
        seconds: For each reader.

    Returns:
        Reader -> pairs per second on one core, or why it cannot be used for these files.
    """
    rates: dict[str, float | str] = {}
    for name in readers:
        try:
            per_pair, _ = measure_reading(make_source(name), pairs_per_visit=pairs_per_visit, seconds=seconds)
            rates[name] = 1 / per_pair
        except (NothingToMeasureError, ValueError) as error:
            rates[name] = str(error)
    return rates


def measure_packed_reading(
    clips: Sequence[Clip], *, short_side: int = 360, quality: int = 90, seconds: float = ENOUGH
) -> float:
    """Time decoding these frames from JPEG of a pack's size, on one core.

    Returns:
        Seconds per pair.
    """
    from PIL import Image
    from torchvision.io import decode_jpeg

    from midway_hub.training.data.packs.jpeg_tar import encode_jpeg

    stored = []
    for clip in clips:
        for frame in clip.pictures:
            image = Image.fromarray(frame)
            scale = min(1.0, short_side / min(image.size))
            small = image.resize((round(image.width * scale), round(image.height * scale)))
            data = encode_jpeg(np.asarray(small), quality)
            stored.append(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    with _one_thread():
        each = _seconds_each(lambda number: decode_jpeg(stored[number % len(stored)]), seconds=seconds)
    return each * len(stored) / len(clips)


def measure_augmentation(
    clips: Sequence[Clip], needs: Needs, *, flow: FlowAsked | None = None, seconds: float = ENOUGH
) -> float:
    """Time drawing and making the views of a clip on one CPU core.

    Returns:
        Seconds per pair.
    """

    def make(number: int) -> None:
        _made(clips[number % len(clips)], needs, flow, number)

    with _one_thread():
        return _seconds_each(make, seconds=seconds)


def measure_batched_augmentation(
    clips: Sequence[Clip],
    needs: Needs,
    device: torch.device,
    *,
    batch: int,
    seconds: float = ENOUGH,
) -> float:
    """Time moving whole frames to a device and making their views there, a batch at a time.

    Returns:
        Seconds per pair.
    """
    size = clips[0].first.shape
    alike = [clip for clip in clips if clip.first.shape == size]
    chosen = [alike[number % len(alike)] for number in range(batch)]
    frames = torch.from_numpy(np.stack([clip.pictures for clip in chosen]))

    def make(number: int) -> None:
        generator = np.random.default_rng((_SEED, number))
        draws = [draw_views(needs, (size[0], size[1]), generator) for _ in chosen]
        apply_views_batched(frames.to(device).permute(0, 1, 4, 2, 3), draws)
        wait_for(device)

    return _seconds_each(make, seconds=seconds) / batch


def views_of(clips: Sequence[Clip], needs: Needs, *, batch: int, flow: FlowAsked | None = None) -> Mapping[str, Tensor]:
    """Make a micro-batch of uint8 views, (B, V, 3, h, w) by group, from a few clips used again and again."""
    made = []
    for number in range(batch):
        made.append(_made(clips[number % len(clips)], needs, flow, number))
    return {group: torch.stack([views[group] for views in made]) for group in made[0]}


def _made(clip: Clip, needs: Needs, flow: FlowAsked | None, number: int) -> dict[str, Tensor]:
    height, width = clip.first.shape[:2]
    draw = draw_views(needs, (height, width), np.random.default_rng((_SEED, number)))
    return apply_views(clip, draw) | (flow.of_clip(clip, draw) if flow is not None else {})


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was asked."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def _seconds_each(work: Callable[[int], object], *, seconds: float, least: int = 3) -> float:
    """Median time of a call: the first one, which warms up, is left out."""
    work(0)
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        work(len(times) + 1)
        times.append(time.perf_counter() - start)
        if len(times) >= 1000:
            break
    return float(np.median(times))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one core, as in a reading process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
