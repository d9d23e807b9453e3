"""The motion of a video as a picture: its path, level by level, and which moments move alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub.analysis.trajectories import MotionPath, motion_latents, motion_path, nearest_moments
from midway_hub.analysis_pictures.axes import Axes, Colour, padded
from midway_hub.analysis_pictures.sheets import captioned_sheet, stacked
from midway_hub.dense.clips import Clip
from midway_hub.dense.writing import check_places, checked_picture, save_picture
from midway_hub.drawing import heat_colours, scale_bar
from midway_hub.models.network import MidwayNetwork
from midway_hub.video import open_video

MOST_MOMENTS = 4000
"""Beyond that, the distances between all of them take too much memory."""
APART = 0.25  # seconds: moments closer in time than that move alike by themselves
LATEST = 0.82  # part of the heat scale that time is shown on; beyond, it is too bright for white paper

Progress = Callable[[str, int, int], None]


def write_trajectories(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    size: int | None = None,
    reader: str = "auto",
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write how the motion latents of a video wander, and which of its moments move alike.

    Args:
        net: A network with dynamics.
        video: A video file. A moment is the step from one kept frame to the next.
        out: A picture (.png .jpg .webp), a row per level.
        every: Take every k-th frame.
        size: Short side in pixels that the network sees frames at; default: as they are.
        reader: Video reader, or "auto".
        progress: Called with what is being done, and how much of it.

    Returns:
        Per moment its frames and seconds; per level the moments' coordinates, each component's share of the variance,
        the nearest moment at least 0.25 s away with its distance, and the distance to the next moment.

    Raises:
        ValueError: An unknown ending, fewer than three frames, too many of them, or no dynamics.
        VideoError: The video cannot be read.
        OSError: The picture cannot be written.
    """
    place = checked_picture(out)
    check_places([video], [out])
    processor = net.image_processor.with_short_side(size, multiple=net.config.patch_size)
    with open_video(video, reader=reader) as opened:
        clip = Clip(opened, every)
        total = len(clip.indices) - 1
        if total < 2:
            raise ValueError(f"{video} gives {total + 1} frames; a trajectory needs at least 3")
        if total > MOST_MOMENTS:
            raise ValueError(f"{video} has {total} moments, more than {MOST_MOMENTS}; take fewer with --every")
        frames = (processor(frame)["pixel_values"][0].to(net.device) for frame in clip.frames())
        latents = _collected(motion_latents(net, frames), progress, total)
        seconds = [float(opened.timestamps[index]) for index in clip.indices]
    paths = [motion_path(level) for level in latents]
    apart = max(1, round(APART * clip.fps))
    rows = [_row(level, path, seconds[:-1], apart) for level, path in zip(net.config.levels, paths, strict=True)]
    save_picture(_explained(stacked(rows), seconds), place)
    moments = [
        {"frames": list(pair), "seconds": [round(seconds[number], 4), round(seconds[number + 1], 4)]}
        for number, pair in enumerate(zip(clip.indices, clip.indices[1:], strict=False))
    ]
    levels = [_facts(level, path, apart) for level, path in zip(net.config.levels, paths, strict=True)]
    return {"out": str(out), "moments": moments, "levels": levels, **clip.notes}


def _collected(batches: Iterator[tuple[Tensor, ...]], progress: Progress, total: int) -> list[Tensor]:
    """Gather the latents of all moments, (T, M, Dm) per level."""
    parts: list[list[Tensor]] = []
    done = 0
    for batch in batches:
        parts.append([level.float().cpu() for level in batch])
        done += len(batch[0])
        progress("motion", done, total)
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def _row(level: int, path: MotionPath, seconds: list[float], apart: int) -> Image.Image:
    alike = _most_alike(path.distances, apart)
    plots = [_path_plot(level, path, alike), _distance_plot(level, path.distances.numpy(), seconds, alike)]
    row = Image.new("RGB", (sum(plot.width for plot in plots), plots[0].height))
    left = 0
    for plot in plots:
        row.paste(plot, (left, 0))
        left += plot.width
    return row


def _path_plot(level: int, path: MotionPath, alike: tuple[int, int] | None) -> Image.Image:
    points, shares = path.points.numpy(), 100 * path.explained.numpy()
    axes = Axes(
        f"level {level}: the way of the motion",
        across=f"first component ({shares[0]:.0f}% of the variance)",
        up=f"second component ({shares[1]:.0f}%)",
        x=padded(points[:, 0]),
        y=padded(points[:, 1]),
    )
    colours = _time_colours(len(points))
    axes.grid()
    axes.line(points, colours)
    axes.dots(points, colours)
    for moment, name in zip(alike or (), "ab", strict=False):
        axes.ring(points[moment], name)
    return axes.picture()


def _distance_plot(
    level: int, distances: np.ndarray, seconds: list[float], alike: tuple[int, int] | None
) -> Image.Image:
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    ends = (seconds[0] - step / 2, seconds[-1] + step / 2)
    axes = Axes(
        f"level {level}: distance between moments, up to {distances.max():.2g}",
        across="moment in seconds",
        up="moment in seconds",
        x=ends,
        y=ends[::-1],
    )
    axes.fill(heat_colours(distances, top=float(distances.max())))
    if alike is not None:
        axes.ring((seconds[alike[1]], seconds[alike[0]]), "a, b")
    return axes.picture()


def _explained(picture: Image.Image, seconds: list[float]) -> Image.Image:
    bar = scale_bar("that level's largest distance")
    text = [
        f"Left: a dot per moment, from dark ({seconds[0]:.1f} s) to bright ({seconds[-2]:.1f} s).",
        "Right: root mean square difference of two moments' latents.",
        f"a, b: the two moments at least {APART:g} s apart that move most alike.",
    ]
    return captioned_sheet(picture, text, legend=bar)


def _most_alike(distances: Tensor, apart: int) -> tuple[int, int] | None:
    """Return the two moments that are nearest, or None where all are too close in time."""
    nearest = nearest_moments(distances, apart=apart)[:, 0]
    known = (nearest >= 0).nonzero()[:, 0]
    if not len(known):
        return None
    first = int(known[distances[known, nearest[known]].argmin()])
    return min(first, int(nearest[first])), max(first, int(nearest[first]))


def _time_colours(count: int) -> list[Colour]:
    scale = heat_colours(np.linspace(0, LATEST, count)[None], top=1)[0]
    return [(int(red), int(green), int(blue)) for red, green, blue in scale]


def _facts(level: int, path: MotionPath, apart: int) -> dict[str, Any]:
    nearest = nearest_moments(path.distances, apart=apart)[:, 0].tolist()
    return {
        "level": level,
        "explained": [round(share, 4) for share in path.explained.tolist()],
        "points": [[round(value, 5) for value in point] for point in path.points.tolist()],
        "nearest": [
            None if other < 0 else {"moment": other, "distance": round(float(path.distances[moment, other]), 5)}
            for moment, other in enumerate(nearest)
        ],
        "to_next": [round(value, 5) for value in path.distances.diagonal(1).tolist()],
    }
