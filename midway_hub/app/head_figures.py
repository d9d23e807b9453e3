"""Figures of the demo that need a head: optical flow and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from midway_hub.app.page import Figure
from midway_hub.class_notes import WORLD_HEADING, classes_note
from midway_hub.dense.estimates import clip_flow, labels_of
from midway_hub.dense.flow_files import common_scale, reach_notes
from midway_hub.drawing import strip
from midway_hub.flow_io import draw_arrows, flow_picture, flow_wheel
from midway_hub.label_pictures import class_legend, most_common, overlay_labels
from midway_hub.models.network import MidwayNetwork

SHORT_SIDE = 384
LISTED = 20

Progress = Callable[[str, int, int], None]


def flow_figure(
    net: MidwayNetwork, pair: Sequence[Image.Image], seconds: Sequence[float], out: Path, progress: Progress
) -> Figure:
    """Show the flow between two frames, as arrows on the first and as colours.

    Args:
        net: A network with a flow head.
        pair: Two frames of one size.
        seconds: When each is shown.
        out: Folder for the pictures.
        progress: Called with what is being done, and how much of it.

    Returns:
        The figure, its pictures written.
    """
    progress("flow", 0, 1)
    (estimate,) = clip_flow(net, pair)
    flow = estimate.flow
    progress("flow", 1, 1)
    largest = common_scale([flow])
    arrows = draw_arrows(pair[0], flow, largest=largest)
    panels = [(f"frame at {seconds[0]:.2f} s", arrows), ("flow", flow_picture(flow, largest=largest))]
    strip(panels, width=600).save(out / "flow.png")
    flow_wheel(largest, size=180).save(out / "flow_wheel.png")
    caption = (
        f"How far every pixel moves from {seconds[0]:.2f} s to {seconds[1]:.2f} s: by up to "
        f"{np.linalg.norm(flow, axis=2).max():.1f} pixels. The wheel's colours say where to and, full at its rim, how "
        f"far. An arrow as long as the space to the next one stands for {largest:.3g} pixels."
    )
    if note := reach_notes(int(estimate.out_of_reach), 1, estimate.reach or 0.0).get("note"):
        caption += f" Note: {note}."
    says = f"wheel of the flow's directions; its rim is {largest:.3g} pixels"
    return Figure("How it moves", caption, ["flow.png"], scale="flow_wheel.png", scale_says=says)


def segmentation_figure(
    net: MidwayNetwork, frames: Sequence[Image.Image], seconds: Sequence[float], out: Path, progress: Progress
) -> Figure:
    """Show the classes of frames, as colours over them.

    Args:
        net: A network with a segmentation head.
        frames: Frames of one size.
        seconds: When each is shown.
        out: Folder for the pictures.
        progress: Called with what is being done, and how much of it.

    Returns:
        The figure, its pictures written.
    """
    head, found, names = net.segmentation_head.config, [], []
    note = classes_note(head.classes)
    title = WORLD_HEADING if note else "classes"
    for done, frame in enumerate(frames):
        progress("classes", done, len(frames))
        found.append(labels_of(net, frame, size=min(SHORT_SIDE, *frame.size)))
        classes = overlay_labels(frame, found[-1], head.palette)
        names.append(f"classes_{done}.png")
        strip([(f"frame at {seconds[done]:.2f} s", frame), (title, classes)]).save(out / names[-1])
    progress("classes", len(frames), len(frames))
    shown = most_common(np.stack(found), LISTED)
    class_legend(head.classes, head.palette, shown).save(out / "classes.png")
    caption = f"The class of every pixel, out of {len(head.classes)}. The list holds those that cover most."
    says = f"{title} and their colours: " + ", ".join(head.classes[label] for label in shown)
    heading = "What it would be in a synthetic world" if note else "What it is"
    return Figure(heading, caption, names, scale="classes.png", scale_says=says, warning=note)
