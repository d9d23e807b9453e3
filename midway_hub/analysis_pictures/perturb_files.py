"""Where touched patches went, as one labelled picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from midway_hub.analysis_pictures.overlays import mark_box, mark_ring, overlay_heat
from midway_hub.analysis_pictures.sheets import captioned_sheet, stacked
from midway_hub.analysis_pictures.touch import Point, Touch, touch_points
from midway_hub.dense.writing import check_places, checked_picture, save_picture
from midway_hub.drawing import scale_bar, strip
from midway_hub.models.network import MidwayNetwork
from midway_hub.picture_files import read_picture
from midway_hub.video import open_video

PANEL_WIDTH = 360

Progress = Callable[[str, int, int], None]


def read_pair(
    paths: Sequence[str | Path], *, pair: tuple[int, int] | None = None, reader: str = "auto"
) -> list[Image.Image]:
    """Read the two frames that a picture is of.

    Args:
        paths: Two image files, or one video.
        pair: Of a video, the numbers of source and target; default: the first two frames.
        reader: Video reader, or "auto".

    Returns:
        Source and target, of one size.

    Raises:
        ValueError: Images of two sizes, a pair of images, or a frame that the video does not have.
        VideoError: The video cannot be read.
        OSError: An image cannot be read.
    """
    if len(paths) == 1:
        with open_video(paths[0], reader=reader) as video:
            wanted = pair or (0, 1)
            if not all(0 <= number < len(video) for number in wanted):
                raise ValueError(f"{paths[0]} has frames 0 to {len(video) - 1}, got the pair {wanted}")
            return [Image.fromarray(frame) for frame in video.get_frames(list(wanted))]
    if pair is not None:
        raise ValueError(f"a pair of frame numbers is picked from a video, got {len(paths)} images as well")
    images = [Image.fromarray(read_picture(path, "image")) for path in paths]
    if images[0].size != images[1].size:
        sizes = ", ".join(f"{path} {image.width}×{image.height}" for path, image in zip(paths, images, strict=True))
        raise ValueError(f"the two images must be of one size (width×height): {sizes}; resize one of them")
    return images


def write_perturbation(
    net: MidwayNetwork,
    frames: Sequence[Image.Image],
    points: Sequence[Point],
    out: str | Path,
    *,
    names: Sequence[str] = ("source", "target"),
    level: int | None = None,
    draws: int = 16,
    exact: bool = False,
    size: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Touch points of one frame and write where every level feels them in the other.

    Args:
        net: A network with dynamics.
        frames: Source and target of one size.
        points: x and y in pixels of the source frame.
        out: A picture (.png .jpg .webp): a row per point, the heatmaps of all levels side by side on one scale.
        names: What captions call the frames.
        level: As for `touch_points`.
        draws: As for `touch_points`.
        exact: As for `touch_points`.
        size: As for `touch_points`.
        progress: As for `touch_points`.

    Returns:
        What was written, and per point and level the peak, the displacement in pixels, score and confidence.

    Raises:
        ValueError: An unknown ending; and as `touch_points`.
        OSError: The picture cannot be written.
    """
    place = checked_picture(out)
    check_places([], [out])
    touches = touch_points(net, frames, points, level=level, draws=draws, exact=exact, size=size, progress=progress)
    how = "whole Jacobian" if exact else f"{draws} random directions"
    save_picture(perturbation_picture(frames, touches, names=names, how=how), place)
    return {
        "out": str(out),
        "width": frames[0].width,
        "height": frames[0].height,
        "measured_by": how,
        "points": [_facts(touch) for touch in touches],
    }


def perturbation_picture(
    frames: Sequence[Image.Image], touches: Sequence[Touch], *, names: Sequence[str], how: str
) -> Image.Image:
    """Draw a row per touch: the touched patch, then the heatmap of every level over the target, all on one scale.

    Args:
        frames: Source and target.
        touches: What was touched and felt.
        names: What captions call the frames.
        how: How the heatmaps were measured.

    Returns:
        One picture.
    """
    top = max(answer.score for touch in touches for answer in touch.answers)
    rows = []
    for touch in touches:
        x, y = touch.at
        panels = [(f"{names[0]}: touched at {x:g}, {y:g}", mark_box(frames[0], touch.box))]
        radius = (touch.box[2] - touch.box[0] + touch.box[3] - touch.box[1]) / 3
        for answer in touch.answers:
            felt = mark_ring(overlay_heat(frames[1], answer.heatmap, top=top), answer.peak, radius)
            moved = "moved {:+.0f}, {:+.0f} px".format(*answer.displacement)
            panels.append((f"level {answer.level}: {moved}, sure {answer.confidence:.2f}", felt))
        rows.append(strip(panels, width=PANEL_WIDTH))
    text = [
        f"Where {names[1]} feels the marked patch (cosine alignment, {how}); the ring is at the peak.",
        "Sure: 1 if touching the peak leads back to the patch, 0.37 if it misses by a patch.",
    ]
    return captioned_sheet(stacked(rows), text, legend=scale_bar(f"{top:.2f}"))


def _facts(touch: Touch) -> dict[str, Any]:
    return {
        "at": list(touch.at),
        "patch": [round(side, 2) for side in touch.box],
        "levels": [
            {
                "level": answer.level,
                "peak": [round(value, 2) for value in answer.peak],
                "displacement": [round(value, 2) for value in answer.displacement],
                "score": round(answer.score, 5),
                "confidence": round(answer.confidence, 4),
            }
            for answer in touch.answers
        ],
    }
