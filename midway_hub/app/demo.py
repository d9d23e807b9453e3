"""The first run on real video: features and motion of a clip, as pictures on one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub._durable import no_empty_folder
from midway_hub.analysis.pca import pca_colours
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.analysis_pictures import overlays
from midway_hub.app.head_figures import flow_figure, segmentation_figure
from midway_hub.app.page import Figure, write_page
from midway_hub.drawing import scale_bar, strip
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import Geometry, MidwayImageProcessor
from midway_hub.registry import DEFAULT_MODEL, get_entry, list_models
from midway_hub.video import open_video

PAIR_SECONDS = 0.4
SHORT_SIDE = 224

Progress = Callable[[str, int, int], None]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Clip:
    """A few frames of a video.

    Attributes:
        path: The video.
        indices: Which frames.
        seconds: When each is shown.
        frames: The frames, all of one size.
    """

    path: Path
    indices: list[int]
    seconds: list[float]
    frames: list[Image.Image]


def sample_clip() -> Path:
    """Return the clip inside the package: 1.5 s of a highway from a dash-cam (udacity/CarND-Vehicle-Detection, MIT)."""
    return Path(str(files("midway_hub.samples") / "highway.mp4"))


def run_demo(
    video: Path | None = None,
    *,
    out: Path,
    model: str = DEFAULT_MODEL,
    device: str | None = None,
    frames: int = 6,
    draws: int = 8,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Run a network on a clip and write pictures and a page that shows them.

    Args:
        video: Video file; default: the clip inside the package.
        out: Folder for `index.html` and the pictures; made if need be.
        model: As for `MidwayNetwork.from_pretrained`.
        device: Where to run; default: CPU.
        frames: Frames to show features of, spread over the video.
        draws: Random directions per heatmap.
        progress: Called with what is being done, and how much of it.

    Returns:
        The page.

    Raises:
        ValueError: The video is too short, or a number is out of range.
        OSError: The video or the weights cannot be read, or `out` cannot be written.
    """
    if frames < 2 or draws < 1:
        raise ValueError(f"frames must be at least 2 and draws at least 1, got {frames} and {draws}")
    with no_empty_folder(out):
        return _write_demo(video or sample_clip(), out, model, device, frames, draws, progress)


def _write_demo(
    video: Path, out: Path, model: str, device: str | None, frames: int, draws: int, progress: Progress
) -> Path:
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    net = MidwayNetwork.from_pretrained(model, device=device)
    processor = net.image_processor.with_short_side(SHORT_SIDE, multiple=net.config.patch_size)
    spread, pair, neighbours = read_clip(video, frames)
    figures = [_feature_figure(net, processor, spread, out, progress)]
    if net.config.dynamics:
        figures.append(_heatmap_figure(net, processor, pair, out, draws, progress))
    if net.has_flow_head:
        figures.append(flow_figure(net, neighbours.frames, neighbours.seconds, out, progress))
    if net.has_segmentation_head:
        figures.append(segmentation_figure(net, spread.frames, spread.seconds, out, progress))
    facts = _facts(net, model, spread, pair, time.perf_counter() - started)
    warning = _warning(model)
    return write_page(out / "index.html", title="What moves where", warning=warning, figures=figures, facts=facts)


def read_clip(video: Path, frames: int) -> tuple[Clip, Clip, Clip]:
    """Read `frames` frames spread over a video, and of its middle a pair about 0.4 s apart and one of neighbours.

    Heatmaps show longer ways; flow, a displacement per pixel, has to be within the network's reach.

    Raises:
        ValueError: The video has fewer than two frames.
    """
    with open_video(video) as reader:
        if len(reader) < 2:
            raise ValueError(f"{video} has {len(reader)} frame; motion needs at least 2")
        spread = sorted(set(np.linspace(0, len(reader) - 1, frames).round().astype(int).tolist()))
        gap = min(max(1, round(PAIR_SECONDS * reader.fps)), len(reader) - 1)
        first = (len(reader) - 1 - gap) // 2
        times = reader.timestamps

        def read(indices: list[int]) -> Clip:
            images = [Image.fromarray(frame) for frame in reader.get_frames(indices)]
            return Clip(video, indices, [float(times[index]) for index in indices], images)

        return read(spread), read([first, first + gap]), read([first, first + 1])


@torch.no_grad()
def _feature_figure(
    net: MidwayNetwork, processor: MidwayImageProcessor, clip: Clip, out: Path, progress: Progress
) -> Figure:
    features = []
    for done, frame in enumerate(clip.frames):
        progress("features", done, len(clip.frames))
        features.append(net.encode(processor(frame)["pixel_values"].to(net.device)).last[0])
    progress("features", len(clip.frames), len(clip.frames))
    colours = pca_colours(torch.stack(features)).cpu().numpy()
    rows = []
    for frame, seconds, colour in zip(clip.frames, clip.seconds, colours, strict=True):
        patches = overlays.colour_image(colour, frame.size)
        rows.append(strip([(f"frame at {seconds:.2f} s", frame), ("features", patches)]))
    names = [_save(row, out / f"features_{index}.png") for index, row in enumerate(rows)]
    caption = (
        "The first three principal components of the last block's features as red, green and blue. One basis serves "
        "all frames: the same colour means the same feature."
    )
    return Figure("What is where", caption, names)


def _heatmap_figure(
    net: MidwayNetwork, processor: MidwayImageProcessor, pair: Clip, out: Path, draws: int, progress: Progress
) -> Figure:
    inputs = processor(pair.frames)
    source, target = inputs["pixel_values"].to(net.device).split(1)
    grid = (source.shape[-2] // net.config.patch_size, source.shape[-1] // net.config.patch_size)
    patches = textured_patches(pair.frames[0], grid)
    tokens = [row * grid[1] + column for row, column in patches]
    with torch.no_grad():
        motion = net.infer_motion(source, target)
    by_level: dict[int, np.ndarray] = {}
    for done, level in enumerate(net.config.levels):
        progress("heatmaps", done, len(net.config.levels))
        heat = perturbation_heatmaps(net, motion, tokens, level=level, draws=draws)
        by_level[level] = _at_frame_size(heat, processor, inputs.geometry)
    progress("heatmaps", len(net.config.levels), len(net.config.levels))
    boxes = [_box(row, column, grid, pair.frames[0].size) for row, column in patches]
    names = [_save(row, out / f"heatmap_{index}.png") for index, row in enumerate(_heatmap_rows(pair, boxes, by_level))]
    caption = (
        f"Left, a patch of the frame at {pair.seconds[0]:.2f} s. Right, over the frame at {pair.seconds[1]:.2f} s, how "
        "much the network's prediction of every place there changes when that patch is touched (forward feature "
        f"perturbation, {draws} draws), {_of_levels(net)}"
    )
    scale = _save(scale_bar("level's highest"), out / "scale.png")
    return Figure("Where it went", caption, names, scale=scale)


def _of_levels(net: MidwayNetwork) -> str:
    if len(net.config.levels) == 1:
        return f"at the network's one level, {net.config.levels[0]}. The colours share one scale."
    return "at each level from coarse to fine. The colours of a level share one scale."


def _heatmap_rows(pair: Clip, boxes: Sequence[Box], by_level: dict[int, np.ndarray]) -> Iterator[Image.Image]:
    """One row of panels per patch: where it was touched, then where every level felt it."""
    tops = {level: float(heat.max()) for level, heat in by_level.items()}
    for index, box in enumerate(boxes):
        panels = [("touched here", overlays.mark_box(pair.frames[0], box))]
        for level, heat in by_level.items():
            felt = overlays.overlay_heat(pair.frames[1], heat[index], top=tops[level])
            panels.append((f"felt here: level {level}, 0 to {tops[level]:.2f}", felt))
        yield strip(panels)


def textured_patches(frame: Image.Image, grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Pick the patch (row, column) of most contrast in each quarter of a frame, away from its edge."""
    height, width = grid
    grey = np.asarray(frame.convert("L").resize((width * 8, height * 8)), dtype=float)
    contrast = grey.reshape(height, 8, width, 8).std(axis=(1, 3))
    edge = np.full_like(contrast, -1.0)
    edge[1:-1, 1:-1] = contrast[1:-1, 1:-1]
    contrast = edge if min(grid) > 3 else contrast
    chosen = []
    for rows in (slice(0, (height + 1) // 2), slice(height // 2, height)):
        for columns in (slice(0, (width + 1) // 2), slice(width // 2, width)):
            quarter = contrast[rows, columns]
            row, column = np.unravel_index(int(np.argmax(quarter)), quarter.shape)
            chosen.append((int(row) + rows.start, int(column) + columns.start))
    return list(dict.fromkeys(chosen))


def _at_frame_size(heat: Tensor, processor: MidwayImageProcessor, geometry: Geometry) -> np.ndarray:
    """Bring heatmaps (n, h, w) to the frames' size, (n, H, W)."""
    pair = heat[None].expand(2, -1, -1, -1)  # the geometry is that of two frames
    return processor.undo(pair.cpu(), geometry, mode="bilinear")[0].numpy()


def _box(row: int, column: int, grid: tuple[int, int], size: tuple[int, int]) -> Box:
    """Place of a patch in a frame of (width, height) pixels whose padding is on the right and at the bottom."""
    step = min(size) / min(grid)
    return column * step, row * step, (column + 1) * step, (row + 1) * step


def _save(image: Image.Image, path: Path) -> str:
    image.save(path)
    return path.name


def _warning(model: str) -> str | None:
    if model not in list_models() or get_entry(model).trained:
        return None
    return (
        "These weights are untrained random numbers. The pictures show that everything runs, not what a trained "
        "network sees: expect colours of position and brightness, and heatmaps that stay where the patch was touched."
    )


def _facts(net: MidwayNetwork, model: str, spread: Clip, pair: Clip, seconds: float) -> Sequence[tuple[str, str]]:
    report = net.load_report
    count = sum(parameter.numel() for parameter in net.parameters())
    digests = ", ".join(f"{name} sha256 {digest}" for name, digest in report.sha256.items()) if report else ""
    return [
        ("model", f"{model} ({count / 1e6:.1f} M parameters)"),
        ("weights", digests),
        ("video", f"{spread.path.name}, {spread.frames[0].width}×{spread.frames[0].height}, frames {spread.indices}"),
        ("pair", f"frames {pair.indices[0]} → {pair.indices[1]}, {pair.seconds[1] - pair.seconds[0]:.2f} s apart"),
        ("ran on", f"{net.device} in {seconds:.1f} s"),
        ("again with", f"midway-hub demo {spread.path.name} --model {model}"),
    ]
