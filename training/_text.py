"""Tables as text, for reports that are returned rather than printed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def text_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, width: int = 120
) -> str:
    """Write rows under a header.

    Args:
        header: Names of the columns.
        rows: Cells, shown as they are.
        title: Line above the table.
        width: Characters that a line may take; longer cells are wrapped.

    Returns:
        The table, no control characters in it.
    """
    drawn = Table(*header, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
