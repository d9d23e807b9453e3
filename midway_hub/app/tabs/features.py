"""What is alike over the clip: features of frames as colours, one basis for all of them."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import torch

from midway_hub.analysis.pca import pca_colours
from midway_hub.analysis_pictures.overlays import colour_image
from midway_hub.app import look
from midway_hub.app.context import LONG, Context, cancel_button
from midway_hub.app.pair import SHORT_SIDE
from midway_hub.app.session import Session
from midway_hub.app.tabs.heatmaps import frame_name
from midway_hub.dense.writing import Progress

WIDTH = 480
KIND = "features"

HELP = (
    "**What looks alike to the network.** The first three principal components of the last block's features, as red, "
    "green and blue, over frames spread over the clip. One basis serves all frames: the same colour means the same "
    "feature."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Features (PCA)", id="features"):
        gr.Markdown(HELP)
        count = gr.Slider(2, 12, value=4, step=1, buttons=[], label="Frames, spread over the clip")
        button = gr.Button("Show features", variant="primary", elem_id="mw-features-button")
        cancel = cancel_button(KIND)
        shown = gr.HTML(look.note("Press “Show features”."), elem_id="mw-features", min_height=look.WAITING)

    def show(count: float, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return context.work(KIND, request, progress, lambda session, told: _features(session, int(count), told))

    context.cancels(cancel, KIND, [button.click(show, count, shown, **LONG)], shown)
    context.changed.change(
        lambda: look.note("Press “Show features” for this clip and model."), None, shown, show_progress="hidden"
    )


@torch.no_grad()
def _features(session: Session, count: int, progress: Progress) -> str:
    with session.lock:
        net, clip = session.chosen.net, session.clip
    total = len(clip.seconds)
    numbers = sorted(set(np.linspace(0, total - 1, count).round().astype(int).tolist()))
    frames = clip.frames(numbers)
    processor = net.image_processor.with_short_side(SHORT_SIDE, multiple=net.config.patch_size)
    found = []
    for done, frame in enumerate(frames):
        progress("features", done, len(frames))
        inputs = processor(frame)
        found.append(net.encode(inputs["pixel_values"].to(net.device)).last[0])
    colours = pca_colours(torch.stack(found)).cpu().numpy()
    size = (WIDTH, round(WIDTH * clip.size[1] / clip.size[0]))
    # The last row and column of patches can be partly beyond the frame: show them as far as the frame goes.
    fitted, model_size = inputs.geometry.placements[0].resized, inputs.geometry.model_size
    figures = []
    for number, frame, colour in zip(numbers, frames, colours, strict=True):
        patches = colour_image(colour, (model_size[1], model_size[0])).crop((0, 0, fitted[1], fitted[0]))
        both = [frame.resize(size), patches.resize(size, resample=0)]
        name = f"Frame {frame_name(session, number)}"
        figures += [look.figure(both[0], name), look.figure(both[1], f"{name}, features")]
    words = f"Features of {len(numbers)} frames, {colours.shape[1]}×{colours.shape[2]} patches each (rows×columns)."
    return look.says(words) + f'<div class="mw-grid mw-twos">{"".join(figures)}</div>'
