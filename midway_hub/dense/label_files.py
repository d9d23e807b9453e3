"""Segmentation of an image or a video: classes laid over the frames, and label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub._durable import no_empty_folder
from midway_hub.class_notes import are_of_worlds, classes_note
from midway_hub.dense.clips import Clip
from midway_hub.dense.estimates import labels_of
from midway_hub.dense.writing import (
    SAMPLES,
    Progress,
    check_places,
    checked_picture,
    folder_of_one_run,
    no_progress,
    save_picture,
)
from midway_hub.drawing import inset
from midway_hub.heads import SegmentationHeadConfig
from midway_hub.label_pictures import LINE, Palette, class_legend, label_map, most_common, overlay_labels
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import load_frame
from midway_hub.video import open_video
from midway_hub.video.writer import write_video

LISTED = 16


@dataclass(frozen=True)
class LabelLook:
    """How classes are shown.

    Attributes:
        opacity: Share of the classes' colours over the frame, 0 to 1.
        legend: Whether a corner lists the classes that cover most.
        beside: Whether the frame is shown to the left of its classes.
    """

    opacity: float = 0.6
    legend: bool = True
    beside: bool = False

    def picture(self, frame: np.ndarray, labels: np.ndarray, palette: Palette, legend: Image.Image) -> Image.Image:
        """Draw labels (H, W) over a frame (H, W, 3) uint8, at its size or at twice its width."""
        drawn = overlay_labels(Image.fromarray(frame), labels, palette, opacity=self.opacity)
        drawn = inset(drawn, legend) if self.legend else drawn
        return Image.fromarray(np.concatenate([frame, np.asarray(drawn)], axis=1)) if self.beside else drawn


def write_image_labels(
    net: MidwayNetwork,
    image: str | Path,
    out: str | Path,
    *,
    labels_out: str | Path | None = None,
    look: LabelLook = LabelLook(),
    **estimation: Any,
) -> dict[str, Any]:
    """Write the classes of an image as colours over it, and as a label map.

    Args:
        net: A network with a segmentation head.
        image: An image file.
        out: A picture (.png .jpg .webp).
        labels_out: Where to write the label map, if anywhere: an indexed .png whose pixels are the class numbers.
        look: How the picture looks.
        **estimation: `size` and `slide`, as for `labels_of`.

    Returns:
        What was written, the share of every class, and what users must know of the classes, if anything.

    Raises:
        ValueError: An unknown ending; and as `labels_of`.
        OSError: The image cannot be read, or a file cannot be written.
    """
    place, map_place = checked_picture(out), _checked_map(labels_out)
    check_places([image], (out, labels_out))
    frame = load_frame(image, name="image")
    labels = labels_of(net, frame, **estimation)
    head = net.segmentation_head.config
    pixels = (frame.movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    save_picture(look.picture(pixels, labels, head.palette, _legend(head, [labels])), place)
    if map_place is not None:
        save_picture(label_map(labels, head.palette), map_place)
    return {
        "out": str(out),
        "labels": None if labels_out is None else str(labels_out),
        "height": labels.shape[0],
        "width": labels.shape[1],
        "classes": {head.classes[n]: round(float((labels == n).mean()), 4) for n in most_common(labels, LISTED)},
        **_meaning(head),
    }


def write_video_labels(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path,
    *,
    labels_out: str | Path | None = None,
    every: int = 1,
    reader: str = "auto",
    look: LabelLook = LabelLook(),
    progress: Progress = no_progress,
    **estimation: Any,
) -> dict[str, Any]:
    """Write the classes of a video as colours over its frames.

    Args:
        net: A network with a segmentation head.
        video: A video file.
        out: An .mp4, .webm or .gif.
        labels_out: Folder for the label maps, if any: one .png per frame, named by its number. It may hold no other
            .png than those that are written over.
        every: Take every k-th frame.
        reader: Video reader, or "auto".
        look: How the pictures look. The legend lists what covers most of frames spread over the video, whose classes
            are told once.
        progress: Called with what is being done, and how much of it.
        **estimation: As for `write_image_labels`.

    Returns:
        What was written.

    Raises:
        ValueError: Not an .mp4, a folder with maps of another run; and as `labels_of`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    folder = None if labels_out is None else Path(labels_out)
    check_places([video], (out, labels_out))
    with no_empty_folder(folder or Path(out).parent), open_video(video, reader=reader) as opened:
        clip = Clip(opened, every)
        if folder is not None:
            folder_of_one_run(folder, (f"{number:06d}.png" for number in clip.indices))
        sampled, known = [], {}
        for number, frame in clip.sample_frames(SAMPLES):
            sampled.append(labels_of(net, frame, **estimation))
            known[number] = sampled[-1]
            progress("legend", len(sampled), min(SAMPLES, len(clip.indices)))
        head = net.segmentation_head.config
        legend = _legend(head, sampled)

        def pictures() -> Iterator[np.ndarray]:
            for number, frame in zip(clip.indices, clip.frames(), strict=True):
                labels = known.pop(number) if number in known else labels_of(net, frame, **estimation)
                if folder is not None:
                    save_picture(label_map(labels, head.palette), folder / f"{number:06d}.png")
                yield np.asarray(look.picture(frame, labels, head.palette, legend))

        total = len(clip.indices)
        done = write_video(out, pictures(), fps=clip.fps, progress=lambda done: progress("classes", done, total))
    written = {"out": str(out), "labels": None if folder is None else str(folder)}
    return {**written, "frames": done, "fps": round(clip.fps, 3), **clip.notes, **_meaning(head)}


def _meaning(head: SegmentationHeadConfig) -> dict[str, str]:
    note = classes_note(head.classes)
    return {"meaning": note} if note else {}


def _legend(head: SegmentationHeadConfig, labels: Sequence[np.ndarray]) -> Image.Image:
    """List the classes that cover most, as many as half the frame's height holds."""
    height, width = labels[0].shape
    font_size = max(10, min(height, width) // 36)
    room = max(1, min(LISTED, int(0.5 * height / (LINE * font_size)) - are_of_worlds(head.classes)))  # its heading
    return class_legend(head.classes, head.palette, most_common(np.stack(labels), room), font_size=font_size)


def _checked_map(path: str | Path | None) -> Path | None:
    if path is not None and Path(path).suffix.lower() != ".png":
        raise ValueError(f"label maps are written as .png, which keeps every number, got {path}")
    return None if path is None else Path(path)
