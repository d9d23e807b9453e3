"""Tables as HTML, every cell escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table whose first column names the rows.

    Args:
        header: Names of the columns.
        rows: Cells of any type; what they say is shown as it is.

    Returns:
        A `<table>` that scrolls sideways where it is wider than the screen.
    """
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in header)
    body = "".join(_row(*row) for row in rows)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(name: Any, *cells: Any) -> str:
    others = "".join(f"<td>{escape(_text(cell))}</td>" for cell in cells)
    return f"<tr><th scope='row'>{escape(str(name))}</th>{others}</tr>"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
