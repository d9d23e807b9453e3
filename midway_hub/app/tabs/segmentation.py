"""What everything in the source frame is: classes over the frame, with a legend."""

from __future__ import annotations

import gradio as gr

from midway_hub.app import look
from midway_hub.app.context import Context
from midway_hub.app.session import Session
from midway_hub.app.tabs.heatmaps import frame_name
from midway_hub.class_notes import WORLD_HEADING, classes_note
from midway_hub.dense.estimates import labels_of
from midway_hub.label_pictures import most_common, overlay_labels

SHORT_SIDE = 384
LISTED = 20

HELP = (
    "**The class of every pixel** of the source frame. This needs a model that was finetuned with a segmentation head."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Segmentation", id="segmentation"):
        gr.Markdown(HELP)
        opacity = gr.Slider(0, 1, value=0.6, step=0.1, buttons=[], label="Opacity of the classes' colours")
        button = gr.Button("Show classes", variant="primary", elem_id="mw-segment-button")
        shown = gr.HTML(look.note("Press “Show classes”."), elem_id="mw-segment", min_height=look.WAITING)

    def show(opacity: float, request: gr.Request, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        session = context.session(request)
        progress(0, desc="classes")
        with session.lock:
            try:
                return _classes(session, opacity)
            except look.FAILURES as trouble:
                return look.wrong(trouble)

    button.click(show, opacity, shown)
    context.changed.change(
        lambda: look.note("Press “Show classes” for this frame."), None, shown, show_progress="hidden"
    )


def _classes(session: Session, opacity: float) -> str:
    net, frame = session.chosen.net, session.pair.frames[0]
    labels = labels_of(net, frame, size=min(SHORT_SIDE, *frame.size))
    head = net.segmentation_head.config
    note, covers = classes_note(head.classes), most_common(labels, LISTED)
    what = WORLD_HEADING.capitalize() if note else "Classes"
    names = [f"{head.classes[label]} {(labels == label).mean():.0%}" for label in covers]
    figures = [
        look.figure(frame, f"Source frame {frame_name(session, session.source)}"),
        look.figure(overlay_labels(frame, labels, head.palette, opacity=opacity), f"{what} over the frame"),
    ]
    words = f"Of {len(head.classes)} {what.lower()}, those that cover most: {', '.join(names)}."
    warning = look.note(note, "warn") if note else ""
    legend = look.legend(names, [head.palette[label] for label in covers])
    return warning + look.says(words) + look.grid(figures) + legend
