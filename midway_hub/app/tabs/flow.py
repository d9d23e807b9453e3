"""How everything moves from the source to the target frame, as colours and arrows."""

from __future__ import annotations

import importlib.util
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from midway_hub.app import look
from midway_hub.app.context import LONG, Context, cancel_button
from midway_hub.app.session import Session
from midway_hub.app.work import counted
from midway_hub.dense.estimates import clip_flow
from midway_hub.dense.flow_files import common_scale, reach_notes
from midway_hub.dense.writing import Progress
from midway_hub.flow_io import draw_arrows, flow_picture, flow_wheel
from midway_hub.flow_peers import make_peer

KIND = "flow"
HEAD, COARSE = "the flow head", "the heatmaps' peaks (coarse, one arrow per patch)"
DIS = "OpenCV's DIS (classical, to compare with)"

HELP = (
    "**How far every pixel moves** from the source to the target frame. The wheel's colours say where to and, full at "
    "its rim, how far. A flow head is a part that a model was finetuned with; without one, motion can be read off the "
    "heatmaps of all patches."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Flow", id="flow"):
        gr.Markdown(HELP)
        rule = gr.Radio([HEAD, COARSE, *([DIS] if has_opencv() else [])], value=HEAD, label="Read from")
        seen = gr.State("")
        arrows = gr.Checkbox(True, label="Arrows over the source frame")
        both = gr.Checkbox(False, label="What the target frame does not show (flow back, too)")
        button = gr.Button("Show flow", variant="primary", elem_id="mw-flow-button")
        cancel = cancel_button(KIND)
        shown = gr.HTML(look.note("Press “Show flow”."), elem_id="mw-flow", min_height=look.WAITING)

    def show(
        rule: str,
        arrows: bool,
        both: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        return context.work(
            KIND, request, progress, lambda session, told: _flow(session, rule, told, arrows=arrows, both=both)
        )

    def renew(seen: str, request: gr.Request) -> tuple[Any, ...]:
        chosen = context.session(request).chosen
        lacking = chosen.lacks("flow")
        press = look.note("Press “Show flow” for these frames.")
        if chosen.name == seen:  # other frames: users keep what they read from
            return press, gr.skip(), seen
        words = look.note(f"{lacking} Flow is read off the heatmaps instead.", "warn") if lacking else press
        return words, COARSE if lacking else HEAD, chosen.name

    context.cancels(cancel, KIND, [button.click(show, [rule, arrows, both], shown, **LONG)], shown)
    context.changed.change(renew, seen, [shown, rule, seen], show_progress="hidden")


def has_opencv() -> bool:
    """Return whether there is an OpenCV to compare with."""
    return importlib.util.find_spec("cv2") is not None


def _flow(session: Session, rule: str, progress: Progress, *, arrows: bool, both: bool = False) -> str:
    pair = session.pair
    hidden = None
    if rule == COARSE:
        flow, notes = pair.coarse_flow(pair.net.config.levels[-1], progress), {}
    else:
        progress("flow", 0, 1)
        with counted(getattr(pair.net, "flow_head", pair.net), progress, "windows"):
            (estimate,) = clip_flow(pair.net if rule == HEAD else make_peer("dis"), pair.frames, both=both)
        flow, hidden = estimate.flow, estimate.occluded
        notes = reach_notes(int(estimate.out_of_reach), 1, estimate.reach or 0.0)
    largest = common_scale([flow])
    source = pair.frames[0]
    first = draw_arrows(source, flow, largest=largest) if arrows else source
    longest = float(np.linalg.norm(flow, axis=2).max())
    words = f"The longest vector is {longest:.1f} px; full colours stand for {largest:.3g} px and more."
    if arrows:
        words += " An arrow as long as the space to the next one stands for that, too."
    figures = [
        look.figure(first, "Source frame" + ", with arrows" * arrows),
        look.figure(flow_picture(flow, largest=largest), "Flow as colours"),
    ]
    if hidden is not None:
        dimmed = np.where(hidden[..., None], (255, 60, 60), np.asarray(source) // 2).astype(np.uint8)
        figures.append(look.figure(Image.fromarray(dimmed), "What the target frame does not show, in red"))
    wheel = look.image(
        flow_wheel(largest, size=180), f"Wheel of the flow's colours by direction; its rim is {largest:.3g} pixels"
    )
    warning = look.note(f"Note: {notes['note']}.", "warn") if notes else ""
    if both and hidden is None:
        warning += look.note("What the target frame does not show is told by the flow head and by DIS only.", "warn")
    return f'{look.says(words)}{warning}{look.grid(figures)}<div class="mw-wheel">{wheel}</div>'
