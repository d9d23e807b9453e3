"""The page as a whole: its top, its tabs, and what happens when a user leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import gradio as gr

from midway_hub.app.clips import VideoClip
from midway_hub.app.context import Context
from midway_hub.app.controls import Controls
from midway_hub.app.demo import sample_clip
from midway_hub.app.networks import Networks
from midway_hub.app.options import PageOptions
from midway_hub.app.session import Sessions
from midway_hub.app.tabs import features, flow, heatmaps, segmentation, tracks

TITLE = "What moves where"
INTRO = (
    "The Midway Network looks at two frames of a video, infers the motion between them, and predicts the one from the "
    "other. Touch a point in one frame and see where the network feels it in the next."
)
TRANSFERS_LIVE = 600
"""Seconds after which Gradio deletes what it kept of a transfer; what is in use is kept elsewhere."""


def build_page(options: PageOptions, folder: Path) -> tuple[gr.Blocks, Sessions]:
    """Build the page.

    Args:
        options: What it offers.
        folder: Where uploads are kept; the page may serve what lies in it.

    Returns:
        Gradio's blocks, not launched, and the users that they are going to have.

    Raises:
        OSError, ValueError: The network cannot be loaded.
    """
    networks = Networks(options.device, offline=options.offline, always=options.model)
    networks.load(options.model)  # trouble shows now, and the first user does not wait
    bundled = VideoClip(Path(shutil.copy(sample_clip(), folder)), "highway.mp4, the bundled clip")
    sessions = Sessions(bundled, lambda: networks.load(options.model), folder, options.limits)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, TRANSFERS_LIVE)) as page:
        gr.Markdown(f"# {TITLE}\n{INTRO}")
        context = Context(sessions, gr.State(""))
        Controls(page, context, networks, first=options.model, any_model=options.any_model)
        with gr.Tabs():
            for tab in (heatmaps, flow, segmentation, features, tracks):
                tab.build(context)

        def leave(request: gr.Request) -> None:
            sessions.close(str(request.session_hash))

        page.unload(leave)
    # Only what says so waits for others: what is quick does not wait for what is long.
    return page.queue(default_concurrency_limit=None), sessions
