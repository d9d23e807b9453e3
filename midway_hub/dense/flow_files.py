"""Flow of a pair of images as a file, and of a video as a video of colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub.dense.clips import Clip
from midway_hub.dense.estimates import flow_between
from midway_hub.dense.writing import (
    PICTURE_SUFFIXES,
    SAMPLES,
    Progress,
    check_places,
    checked_picture,
    no_progress,
    save_picture,
)
from midway_hub.drawing import inset
from midway_hub.flow_io import FLOW_SUFFIXES, draw_arrows, flow_picture, flow_wheel, write_flow
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import load_frame
from midway_hub.video import open_video
from midway_hub.video.writer import write_video

WHEEL_SHARE, LEAST_WHEEL, LARGEST_WHEEL = 0.3, 64, 220


@dataclass(frozen=True)
class FlowLook:
    """How flow is shown.

    Attributes:
        largest: Length in pixels of the full colours; default: what 99% of the pixels stay below.
        arrows: Whether arrows are drawn over the colours.
        legend: Whether a wheel in a corner explains the colours.
    """

    largest: float | None = None
    arrows: bool = False
    legend: bool = True

    def __post_init__(self) -> None:
        if self.largest is not None and not 0 < self.largest < float("inf"):
            raise ValueError(f"the scale of flow pictures must be a positive number of pixels, got {self.largest}")

    def picture(self, flow: np.ndarray, largest: float) -> Image.Image:
        """Draw flow (H, W, 2) under a fixed maximum; the picture has the flow's size."""
        drawn = flow_picture(flow, largest=largest)
        if self.arrows:
            drawn = draw_arrows(drawn, flow, largest=largest)
        size = min(round(WHEEL_SHARE * min(drawn.size)), LARGEST_WHEEL)
        return inset(drawn, flow_wheel(largest, size=size)) if self.legend and size >= LEAST_WHEEL else drawn


def write_pair_flow(
    net: MidwayNetwork,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    kitti: bool = False,
    picture: str | Path | None = None,
    look: FlowLook = FlowLook(),
    **estimation: Any,
) -> dict[str, Any]:
    """Write the flow from one image to another: as numbers, as a picture, or both.

    Args:
        net: A network with a flow head.
        images: Two image files of one size.
        out: A file of numbers (.flo .pfm .flo5 .npy .npz), or a colour picture (.png .jpg .webp).
        kitti: Whether a .png is KITTI's 16-bit file of numbers, no picture.
        picture: Where to write a colour picture as well.
        look: How the picture looks.
        **estimation: `size`, `tile` and `overlap`, as for `flow_between`.

    Returns:
        What was written, and the longest and the mean flow in pixels.

    Raises:
        ValueError: An ending that is unknown or contradicts `kitti`, images of two sizes; and as `flow_between`.
        OSError: An image cannot be read, or a file cannot be written.
    """
    as_numbers = _holds_numbers(Path(out), kitti=kitti)
    check_places(images, (out, picture))
    pictures = [checked_picture(path) for path in (None if as_numbers else out, picture) if path is not None]
    flow = flow_between(net, _same_size(images), **estimation)
    largest = common_scale([flow]) if look.largest is None else look.largest
    if as_numbers:
        write_flow(out, flow)
    for path in pictures:
        save_picture(look.picture(flow, largest), path)
    lengths = _lengths(flow)
    return {
        "out": str(out),
        "holds": "flow in pixels" if as_numbers else f"colours, full at {largest:.3g} pixels",
        "pictures": list(map(str, pictures)),
        "height": flow.shape[0],
        "width": flow.shape[1],
        "mean_flow": round(float(lengths.mean()), 3),
        "longest_flow": round(float(lengths.max()), 3),
    }


def write_video_flow(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    reader: str = "auto",
    look: FlowLook = FlowLook(),
    progress: Progress = no_progress,
    **estimation: Any,
) -> dict[str, Any]:
    """Write the flow of a video as a video of colours on one scale.

    Args:
        net: A network with a flow head.
        video: A video file.
        out: An .mp4. Its n-th picture is the flow from the n-th kept frame to the next.
        every: Take every k-th frame.
        reader: Video reader, or "auto".
        look: How the pictures look. Without `largest`, the scale is found on pairs spread over the video.
        progress: Called with what is being done, and how much of it.
        **estimation: As for `write_pair_flow`.

    Returns:
        What was written.

    Raises:
        ValueError: Not an .mp4, fewer than two frames; and as `flow_between`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    check_places([video], [out])
    with open_video(video, reader=reader) as opened:
        clip = Clip(opened, every)
        total = len(clip.indices) - 1
        if total < 1:
            raise ValueError(f"{video} has {len(opened)} frames, of which every {every} gives one; flow needs two")
        largest = _clip_scale(net, clip, progress, estimation) if look.largest is None else look.largest

        def pictures() -> Iterator[np.ndarray]:
            for pair in clip.pairs():
                yield np.asarray(look.picture(flow_between(net, pair, **estimation), largest))

        done = write_video(out, pictures(), fps=clip.fps, progress=lambda done: progress("flow", done, total))
    scale = float(f"{largest:.4g}")
    return {"out": str(out), "pairs": done, "fps": round(clip.fps, 3), "colours_full_at": scale, **clip.notes}


def common_scale(flows: Sequence[np.ndarray]) -> float:
    """Return the length in pixels that 99% of the pixels of every flow (H, W, 2) stay below, at least 1."""
    return max(1.0, *(float(np.percentile(_lengths(flow), 99)) for flow in flows))


def _lengths(flow: np.ndarray) -> np.ndarray:
    return np.linalg.norm(flow.astype(np.float64), axis=2)  # squares of what float32 holds are beyond it


def _clip_scale(net: MidwayNetwork, clip: Clip, progress: Progress, estimation: dict[str, Any]) -> float:
    scales, count = [], min(SAMPLES, len(clip.indices) - 1)
    for pair in clip.sample_pairs(SAMPLES):
        scales.append(common_scale([flow_between(net, pair, **estimation)]))
        progress("scale", len(scales), count)
    return max(scales)


def _holds_numbers(out: Path, *, kitti: bool) -> bool:
    suffix = out.suffix.lower()
    if kitti and suffix != ".png":
        raise ValueError(f"KITTI's 16-bit flow is a .png, got {out}")
    if suffix in PICTURE_SUFFIXES:
        return kitti
    if suffix not in FLOW_SUFFIXES:
        known = dict.fromkeys((*FLOW_SUFFIXES, *PICTURE_SUFFIXES))
        raise ValueError(f"flow between images is written as {' '.join(known)}, got {out}")
    return True


def _same_size(images: Sequence[str | Path]) -> list[Any]:
    frames = [load_frame(path, name=f"image {path}") for path in images]
    sizes = [f"{path} {frame.shape[-2]}×{frame.shape[-1]}" for path, frame in zip(images, frames, strict=True)]
    if any(frame.shape != frames[0].shape for frame in frames):
        raise ValueError(f"the two images must be of one size (height×width): {', '.join(sizes)}; resize one of them")
    return frames
