"""One HTML page of figures: no script, nothing from the network, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #202124; --paper: #fff; --soft: #5f6368; --line: #dadce0; --warn: #fef3c7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #17181a; --soft: #9aa0a6; --line: #3c4043; --warn: #4a3a05; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 78rem;
       margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .25rem; }
p { color: var(--soft); max-width: 60rem; margin: .25rem 0 .75rem; }
.warning { background: var(--warn); color: var(--ink); padding: .75rem 1rem; border-radius: .5rem; }
figure { margin: 0; } figure img { display: block; max-width: 100%; margin: 0 0 .5rem; border-radius: .25rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: .75rem; }
table { border-collapse: collapse; font-size: .9rem; } th { text-align: left; font-weight: 600; padding-right: 1.5rem; }
th, td { border-top: 1px solid var(--line); padding: .3rem .75rem .3rem 0; vertical-align: top; }
"""


@dataclass(frozen=True)
class Figure:
    """A heading, what to see, and pictures beside the page.

    Attributes:
        title: The heading.
        caption: What the pictures show.
        pictures: File names.
        scale: File name of the colour scale, if the pictures have one.
        scale_says: What the colour scale shows, for those who do not see it.
        warning: What readers must know before they look, if anything.
    """

    title: str
    caption: str
    pictures: Sequence[str]
    scale: str | None = None
    scale_says: str = "colour scale from 0 to the highest value"
    warning: str | None = None


def write_page(
    path: Path, *, title: str, warning: str | None, figures: Sequence[Figure], facts: Sequence[tuple[str, str]]
) -> Path:
    """Write a page of figures.

    Args:
        path: Where to.
        title: Heading of the page.
        warning: What readers must know before they look, if anything.
        figures: In the order to show them.
        facts: Names and values for the table at the end.

    Returns:
        `path`.
    """
    note = f'<p class="warning" role="note">{escape(warning)}</p>' if warning else ""
    rows = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    path.write_text(
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{STYLE}</style></head><body>"
        f"<main><h1>{escape(title)}</h1>{note}{''.join(map(_figure, figures))}"
        f"<h2>How this was made</h2><table>{rows}</table></main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _figure(figure: Figure) -> str:
    images = "".join(
        f"<img src='{escape(name)}' alt='{escape(figure.title)}, {index + 1} of {len(figure.pictures)}'>"
        for index, name in enumerate(figure.pictures)
    )
    scale = f"<img src='{escape(figure.scale)}' alt='{escape(figure.scale_says)}'>" if figure.scale else ""
    warning = f"<p class='warning'>{escape(figure.warning)}</p>" if figure.warning else ""
    layout = "pairs" if figure.scale is None else "rows"
    return (
        f"<section><h2>{escape(figure.title)}</h2>{warning}<p>{escape(figure.caption)}</p>"
        f"<figure>{scale}<div class='{layout}'>{images}</div></figure></section>"
    )
