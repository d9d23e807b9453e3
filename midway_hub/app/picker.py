"""A frame to point at: by mouse, by touch, or by arrow keys."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from midway_hub.app import look
from midway_hub.app.pair import Place

# Places are told as shares of the frame, since it is shown larger or smaller than it is.
JAVASCRIPT = """
const keys = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
element.addEventListener('click', event => {
  const image = event.target.closest('.mw-picker img');
  if (!image) return;
  const box = image.getBoundingClientRect();
  trigger('select', {x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height});
});
element.addEventListener('keydown', event => {
  if (!keys[event.key] || !event.target.closest('.mw-picker')) return;
  event.preventDefault();
  trigger('select', {columns: keys[event.key][0], rows: keys[event.key][1]});
});
"""


def frame_picker(elem_id: str) -> gr.HTML:
    """Make a place for a frame whose `select` event tells where it was clicked, or which arrow key was pressed."""
    return gr.HTML(elem_id=elem_id, js_on_load=JAVASCRIPT)


def picker_html(picture: Image.Image, label: str, caption: str) -> str:
    """Show a frame in a picker.

    Args:
        picture: The frame.
        label: What it is and how to use it, for screen readers.
        caption: What it is.
    """
    shown = look.image(picture, caption)
    box = f'<div class="mw-picker" tabindex="0" role="application" aria-label="{look.escape(label)}">{shown}'
    return f'{box}<div class="mw-mark"></div></div><span class="mw-caption">{look.escape(caption)}</span>'


def mark_style(elem_id: str, box: tuple[float, float, float, float]) -> str:
    """Put the mark of a picker over a box, in shares of the frame, without drawing the frame anew."""
    shares = (box[0], box[1], box[2] - box[0], box[3] - box[1])
    left, top, width, height = (f"{100 * share:.3f}%" for share in shares)
    place = f"left: {left}; top: {top}; width: {width}; height: {height}"
    return f"<style>#{elem_id} .mw-mark {{ display: block; {place} }}</style>"


def picked(event: gr.EventData) -> Place | tuple[int, int]:
    """Read a picker's event: a place (two floats) that was clicked, or a step (two whole numbers) of an arrow key."""
    data: dict[str, Any] = event._data
    if "x" in data:
        return float(data["x"]), float(data["y"])
    return int(data["columns"]), int(data["rows"])
