"""How the command line prints tables: no name and no number is ever cut."""

import io

import pytest
from rich.console import Console

from midway_hub import _console

HEADER = ("estimator", "EPE", "bad 1", "made on")
ROWS = [
    ("midway_vits_bdd100k", "12.34", "56.78", "own size, 320x384 tiles, overlap 0.9"),
    ("raft_large (random weights)", "1.20", "99.99", "short side 480"),
]


@pytest.fixture
def printed(monkeypatch):
    def run(width, *, terminal=True):
        out = io.StringIO()
        monkeypatch.setattr(_console, "OUT", Console(file=out, width=width, force_terminal=terminal, color_system=None))
        _console.table("errors", HEADER, ROWS)
        return out.getvalue()

    return run


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_names_and_numbers_are_whole_at_every_width_of_a_terminal(printed, width):
    text = printed(width)
    assert "…" not in text
    for word in " ".join([" ".join(row) for row in (HEADER, *ROWS)]).split():
        assert word in text


@pytest.mark.parametrize("width", [200, 80, 60])
def test_lines_fit_the_terminal_where_words_do(printed, width):
    assert max(map(len, printed(width).splitlines())) <= width


def test_in_a_narrow_terminal_rows_come_one_below_the_other(printed):
    lines = printed(30).splitlines()
    assert lines[1:4] == ["estimator    midway_vits_bdd100k", "  EPE        12.34", "  bad 1      56.78"]


@pytest.mark.parametrize("width", [80, 20])
def test_files_and_pipes_get_every_row_on_one_line(printed, width):
    lines = printed(width, terminal=False).splitlines()
    for row in ROWS:
        assert any(all(cell in line for cell in row) for line in lines)
