"""Flow of a pair of images as a file, and of a video as a video of colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub.dense.colour_scale import ColourScale, common_length, vector_lengths
from midway_hub.dense.estimates import as_pixels, check_flow_options, clip_flow
from midway_hub.dense.propagated_files import FrameSource, open_frames
from midway_hub.dense.writing import (
    PICTURE_SUFFIXES,
    Progress,
    check_places,
    checked_picture,
    no_progress,
    save_picture,
)
from midway_hub.drawing import inset
from midway_hub.flow_io import FLOW_SUFFIXES, draw_arrows, flow_picture, flow_wheel, write_flow
from midway_hub.flow_peers import FlowPeer
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import load_frame
from midway_hub.video.writer import check_video_ending, write_video

WHEEL_SHARE, LEAST_WHEEL, LARGEST_WHEEL = 0.3, 64, 220


@dataclass(frozen=True)
class FlowLook:
    """How flow is shown.

    Attributes:
        largest: Length in pixels of the full colours; default: what 99% of the pixels stay below; of clips, as
            `ColourScale` says.
        arrows: Whether arrows are drawn over the colours.
        legend: Whether a wheel in a corner explains the colours.
        beside: Whether the source frame is shown to the left of its flow.
    """

    largest: float | None = None
    arrows: bool = False
    legend: bool = True
    beside: bool = False

    def __post_init__(self) -> None:
        if self.largest is not None and not 0 < self.largest < float("inf"):
            raise ValueError(f"the scale of flow pictures must be a positive number of pixels, got {self.largest}")

    def picture(self, flow: np.ndarray, largest: float, frame: np.ndarray) -> Image.Image:
        """Draw the flow (H, W, 2) of a frame (H, W, 3) uint8 under a fixed maximum, at its size or twice its width."""
        drawn = flow_picture(flow, largest=largest)
        if self.arrows:
            drawn = draw_arrows(drawn, flow, largest=largest)
        size = min(round(WHEEL_SHARE * min(drawn.size)), LARGEST_WHEEL)
        if self.legend and size >= LEAST_WHEEL:
            drawn = inset(drawn, flow_wheel(largest, size=size))
        return Image.fromarray(np.concatenate([frame, np.asarray(drawn)], axis=1)) if self.beside else drawn


DEFAULT_LOOK = FlowLook()


def write_pair_flow(
    net: MidwayNetwork | FlowPeer,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    kitti: bool = False,
    picture: str | Path | None = None,
    look: FlowLook = DEFAULT_LOOK,
    **estimation: Any,
) -> dict[str, Any]:
    """Write the flow from one image to another: as numbers, as a picture, or both.

    With `both`, FLOW_backward.flo holds the flow back; FLOW_occluded.png is white where the target hides the source.

    Args:
        net: A network with a flow head, or an estimator by others.
        images: Two image files of one size.
        out: A file of numbers (.flo .pfm .flo5 .npy .npz), or a colour picture (.png .jpg .webp).
        kitti: Whether a .png is KITTI's 16-bit file of numbers, no picture.
        picture: Where to write a colour picture as well.
        look: How the picture looks.
        **estimation: `size`, `tile`, `overlap`, `updates` and `both`, as for `clip_flow`.

    Returns:
        What was written, the longest and the mean flow in pixels, and how far the network reaches at this size; a
        `note` where motion probably went further.

    Raises:
        ValueError: An ending that is unknown or contradicts `kitti`, images of two sizes; and as `flow_between`.
        OSError: An image cannot be read, or a file cannot be written.
    """
    as_numbers = _holds_numbers(Path(out), kitti=kitti)
    beside = [] if not estimation.get("both") else both_files(Path(out), as_numbers)
    check_places(images, (out, picture, *beside))
    pictures = [checked_picture(path) for path in (None if as_numbers else out, picture) if path is not None]
    frames = load_pair(images)
    (estimate,) = clip_flow(net, frames, **estimation)
    flow = estimate.flow
    largest = common_scale([flow]) if look.largest is None else look.largest
    if as_numbers:
        write_flow(out, flow)
    for path in pictures:
        save_picture(look.picture(flow, largest, as_pixels(frames[0])), path)
    if estimate.backward is not None and estimate.occluded is not None:
        back = None if as_numbers else look.picture(estimate.backward, largest, as_pixels(frames[1]))
        write_both(beside, estimate.backward, estimate.occluded, back)
    lengths = vector_lengths(flow)
    return {
        "out": str(out),
        **({"both": list(map(str, beside))} if beside else {}),
        "holds": "flow in pixels" if as_numbers else f"colours, full at {largest:.3g} pixels",
        "pictures": list(map(str, pictures)),
        "height": flow.shape[0],
        "width": flow.shape[1],
        "mean_flow": round(float(lengths.mean()), 3),
        "longest_flow": round(float(lengths.max()), 3),
        **reach_facts(estimate.reach, int(estimate.out_of_reach), 1),
    }


def both_files(path: Path, as_numbers: bool) -> list[Path]:
    """Return where the flow back and the occluded pixels are written, beside the flow's own file."""
    ending = path.suffix if as_numbers or path.suffix.lower() in PICTURE_SUFFIXES else ".flo"
    return [path.with_name(f"{path.stem}_backward{ending}"), path.with_name(f"{path.stem}_occluded.png")]


def write_both(files: Sequence[Path], backward: np.ndarray, occluded: np.ndarray, picture: Image.Image | None) -> None:
    """Write the flow back, as numbers where there is no picture of it, and the occluded pixels in white."""
    if picture is not None:
        save_picture(picture, files[0])
    else:
        write_flow(files[0], backward)
    save_picture(Image.fromarray(np.where(occluded, 255, 0).astype(np.uint8)), files[1])


def write_video_flow(
    net: MidwayNetwork | FlowPeer,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    reader: str = "auto",
    look: FlowLook = DEFAULT_LOOK,
    progress: Progress = no_progress,
    **estimation: Any,
) -> dict[str, Any]:
    """Write the flow of a video as a video of colours, in one pass: frames are read and encoded once.

    Args:
        net: A network with a flow head, or an estimator by others.
        video: A video file, or a folder of pictures named by their numbers.
        out: An .mp4, .webm or .gif. Its n-th picture is the flow from the n-th kept frame to the next.
        every: Take every k-th frame.
        reader: Video reader, or "auto".
        look: How the pictures look. Without `largest`, their scale follows the motion, see `ColourScale`.
        progress: Called with what is being done, and how much of it.
        **estimation: As for `write_pair_flow`.

    Returns:
        What was written, the scale of the colours, and how far the network reaches at this size; a `note` where motion
        probably went further.

    Raises:
        ValueError: Another ending, fewer than two frames; and as `clip_flow`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    check_video_ending(Path(out))
    check_places([video], [out])
    check_flow_options(net, **estimation)
    if estimation.get("both"):
        raise ValueError(f"flow back and occlusions are files of their own, {out} is one video: name a folder")
    with open_frames(video, start=0, every=every, reader=reader) as clip:
        total, fps = count_pairs(clip, video, every), clip.fps / every
        scale, beyond = ColourScale(look.largest), 0
        reach: float | None = None

        def pictures() -> Iterator[np.ndarray]:
            nonlocal reach, beyond
            shown, seen = tee(clip.frames)
            for frame, estimate in zip(shown, clip_flow(net, seen, **estimation), strict=False):
                reach, beyond = estimate.reach, beyond + estimate.out_of_reach
                yield np.asarray(look.picture(estimate.flow, scale.of(estimate.flow), frame))

        done = write_video(out, pictures(), fps=fps, progress=lambda done: progress("flow", done, total))
    facts = {"out": str(out), "pairs": done, "fps": round(fps, 3), **scale_facts(scale)}
    return {**facts, **reach_facts(reach, beyond, done, clip.note)}


def count_pairs(clip: FrameSource, source: object, every: int) -> int:
    """Return how many pairs the kept frames of a clip make, or refuse one that has none with a ValueError."""
    if len(clip.names) < 2:
        raise ValueError(f"{source} has too few frames: every {every} of them gives one; flow needs two")
    return len(clip.names) - 1


def scale_facts(scale: ColourScale) -> dict[str, Any]:
    """Say what the full colours of a clip stand for at its end, and from which pair on they stood for what."""
    grew = {"colours_grew": {f"from pair {pair}": step for pair, step in scale.steps.items()}}
    return {"colours_full_at": float(f"{scale.largest:.4g}"), **(grew if len(scale.steps) > 1 else {})}


def reach_facts(reach: float | None, beyond: int, pairs: int, *notes: str) -> dict[str, Any]:
    """Say how far the network reaches, where that is known, and what users should know."""
    known = {} if reach is None else {"reach": round(reach, 1)}
    return {**known, **reach_notes(beyond, pairs, reach or 0.0, *notes)}


def reach_notes(beyond: int, pairs: int, reach: float, *notes: str) -> dict[str, str]:
    """Make the `note` of what users should know: of how many pairs the motion was probably out of reach, and more."""
    said = [note for note in notes if note]
    if beyond:
        which = "this pair" if pairs == 1 else f"{beyond} of {pairs} pairs"
        said.append(
            f"motion was probably out of reach in {which}, and the flow there is wrong: at this size the network tells "
            f"motion of up to about {reach:.0f} pixels; a smaller size (--size) reaches further, and so do frames that "
            "are nearer to each other in time"
        )
    return {"note": "; ".join(said)} if said else {}


def common_scale(flows: Sequence[np.ndarray]) -> float:
    """Return the length in pixels that 99% of the pixels of every flow (H, W, 2) stay below, at least 1."""
    return max(1.0, *map(common_length, flows))


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


def load_pair(images: Sequence[str | Path]) -> list[Any]:
    """Read two images, (3, H, W) in [0, 1] each; a ValueError says where they are not of one size."""
    frames = [load_frame(path, name=f"image {path}") for path in images]
    sizes = [f"{path} {frame.shape[-2]}×{frame.shape[-1]}" for path, frame in zip(images, frames, strict=True)]
    if any(frame.shape != frames[0].shape for frame in frames):
        raise ValueError(f"the two images must be of one size (height×width): {', '.join(sizes)}; resize one of them")
    return frames
