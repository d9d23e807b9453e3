"""What the page is made of between Gradio's controls: pictures, legends and messages as HTML, and their style."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from midway_hub.drawing import HEAT

STYLE = """
.gradio-container { width: 100% !important; max-width: 82rem !important; margin: 0 auto !important }
.gradio-container .html-container { padding: 0 }
@media (max-width: 40rem) { .gradio-container main, .gradio-container .main { padding: .5rem !important } }
.block:has(> .html-container > .prose:empty) { display: none }
#mw-model input { text-overflow: ellipsis; margin-right: 1rem }
#mw-load { align-self: end; height: 2.6rem }
.mw-grid { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)) }
.mw-grid figure, .mw-picker figure { margin: 0 }
.mw-grid img, .mw-grid video, .mw-picker img { display: block; width: 100%; height: auto; border-radius: .25rem;
  margin: 0; box-sizing: border-box }
.mw-grid img { border: 1px solid var(--border-color-primary) }
.mw-caption { color: var(--body-text-color); font-size: .9rem; line-height: 1.4; padding: .3rem 0; display: block }
.mw-soft, .mw-facts dt { color: color-mix(in srgb, var(--body-text-color) 78%, transparent) }
.mw-soft { font-size: .9rem; line-height: 1.45; margin: .25rem 0 .5rem }
.mw-note { border-left: .3rem solid; border-radius: .25rem; padding: .6rem .9rem; line-height: 1.45;
  color: var(--body-text-color) }
.mw-warn { border-color: #d97706; background: color-mix(in srgb, #f59e0b 16%, transparent) }
.mw-wrong { border-color: #dc2626; background: color-mix(in srgb, #ef4444 14%, transparent) }
.mw-hint { border-color: var(--color-accent); background: color-mix(in srgb, var(--color-accent) 10%, transparent) }
.mw-picker { position: relative; cursor: crosshair; border-radius: .25rem }
.mw-picker:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px }
.mw-mark { position: absolute; box-sizing: border-box; border: 2px solid #00e5ff; box-shadow: 0 0 0 1.5px #202124,
  inset 0 0 0 1.5px #202124; pointer-events: none; display: none }
.mw-film video, .mw-film img { display: block; width: 100%; border-radius: .25rem; margin: 0 }
#mw-film video, #mw-film img { max-height: 18rem; object-fit: contain; background: #000 }
.mw-twos { grid-template-columns: repeat(auto-fit, minmax(min(45%, 15rem), 1fr)) }
.mw-wheel { margin-top: .5rem } .mw-wheel img { border-radius: .25rem; max-width: 11rem }
.mw-bar { display: flex; align-items: center; gap: .6rem; margin: .5rem 0; color: var(--body-text-color);
  font-size: .9rem }
.mw-bar > span[role=img] { flex: 0 1 16rem; height: .9rem; border-radius: .2rem;
  border: 1px solid var(--border-color-primary) }
.mw-legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; list-style: none; padding: 0; margin: .5rem 0;
  color: var(--body-text-color); font-size: .9rem }
.mw-legend li { display: flex; align-items: center; gap: .4rem; margin: 0 }
.mw-legend span { width: 1rem; height: 1rem; border-radius: .2rem; border: 1px solid var(--border-color-primary) }
.mw-facts { display: grid; grid-template-columns: auto 1fr; gap: .1rem .9rem; margin: 0; font-size: .9rem;
  line-height: 1.45; color: var(--body-text-color) }
.mw-facts dd { margin: 0; overflow-wrap: anywhere }
"""

WAITING = 90
"""Least height in pixels of what is computed: a progress bar fits in."""
FAILURES = (OSError, ValueError, TypeError, RuntimeError, IndexError, ImportError)
"""What goes wrong in ways that users are told of."""


def image(picture: Image.Image, alt: str) -> str:
    """Make an `<img>` that holds its picture: nothing is written to disk."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img {size} alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'


def figure(picture: Image.Image, caption: str, *, alt: str | None = None) -> str:
    """Make a captioned picture; its caption serves as its alternative text unless there is another."""
    words = f'<figcaption class="mw-caption">{escape(caption)}</figcaption>'
    return f"<figure>{image(picture, alt or caption)}{words}</figure>"


def film(path: Path, label: str) -> str:
    """Make a player for a file that the page may serve, with the browser's own controls, which keys work in."""
    # A relative address, so that it holds behind a proxy that puts the page into a folder.
    address = f"gradio_api/file={quote(str(path))}"
    return (
        f'<video controls loop muted playsinline preload="auto" aria-label="{escape(label)}" src="{address}"></video>'
    )


def grid(figures: Iterable[str]) -> str:
    """Set figures side by side, as many as there is room for."""
    return f'<div class="mw-grid">{"".join(figures)}</div>'


def note(text: str, kind: str = "hint") -> str:
    """Make a message: a "hint", a "warn"ing, or what went "wrong", which screen readers read out at once."""
    role = "alert" if kind == "wrong" else "note"
    return f'<div class="mw-note mw-{kind}" role="{role}">{escape(text)}</div>'


def wrong(trouble: BaseException) -> str:
    """Tell what went wrong."""
    return note(str(trouble) or type(trouble).__name__, "wrong")


def says(text: str) -> str:
    """Make a line that screen readers read out when it changes."""
    return f'<p class="mw-soft" role="status" aria-live="polite">{escape(text)}</p>'


def facts(values: dict[str, str]) -> str:
    """List names and values."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f'<dl class="mw-facts">{rows}</dl>'


def heat_bar(top: float, what: str) -> str:
    """Draw the heat scale, from 0 to `top`."""
    stops = ", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in HEAT)
    alt = escape(f"colour scale from dark, 0, to bright, {top:.2f}")
    return (
        f'<div class="mw-bar">{escape(what)}: 0 <span role="img" aria-label="{alt}" '
        f'style="background: linear-gradient(to right, {stops})"></span> {top:.2f}</div>'
    )


def legend(names: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> str:
    """List colours and what they stand for."""
    rows = (
        f'<li><span style="background: rgb{tuple(map(int, colour))}"></span>{escape(name)}</li>'
        for name, colour in zip(names, colours, strict=True)
    )
    return f'<ul class="mw-legend">{"".join(rows)}</ul>'
