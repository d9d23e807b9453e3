"""Long jobs tell how far they are: a line soon, then ever more seldom, on stderr alone."""

import io
import itertools
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from midway_hub import _console as console
from midway_hub._progress import LONGEST, Lines, download_watcher, duration, speed, told, watched_downloads
from midway_hub.extraction import Progress
from midway_hub.extraction.sources import Source
from midway_hub.training.engine.progress import ProgressReport
from midway_hub.training.timeline import Timeline


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


def lines_at(clock, said, seconds, *, every=1, total=10_000):
    """Report a step every so many seconds; return how long after the start each line came."""
    start, lines, times = clock.now, Lines(said.append, clock), []
    for done in range(0, int(seconds / every) + 1):
        clock.now = start + done * every
        before = len(said)
        lines.update("frames", done, total)
        times += [clock.now - start] * (len(said) - before)
    return lines, times


def test_a_line_comes_soon_then_at_growing_intervals(clock, said):
    _, times = lines_at(clock, said, 600)
    assert times[0] <= 3
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert max(gaps) == LONGEST
    assert len(times) < 20


def test_a_line_says_how_much_of_how_much_how_fast_and_how_long_still(clock, said):
    lines_at(clock, said, 100, every=2, total=200)
    assert said[-1].startswith("frames: 32 of 200, 2 s each, 5:36 left, going on after 1:04")
    lines = Lines(said.append, clock)
    lines.update("frames", 0, 400)
    clock.now += 10
    lines.update("frames", 50, 400, "clip.mp4")
    assert said[-1] == "frames: 50 of 400, 5 a second, 1:10 left (clip.mp4), going on after 0:10"


def test_an_unknown_total_is_left_out(clock, said):
    lines = Lines(said.append, clock)
    lines.update("downloading x, MB", 0, 0)
    clock.now += 4
    lines.update("downloading x, MB", 12, 0)
    assert said == ["downloading x, MB: 12, 3 a second, going on after 0:04"]


def test_a_short_job_says_nothing(clock, said):
    lines = Lines(said.append, clock)
    for done in range(5):
        lines.update("frames", done, 5)
        clock.now += 0.1
    lines.close()
    assert said == []


def test_a_job_that_told_how_far_it_is_tells_how_far_it_came(clock, said):
    lines, _ = lines_at(clock, said, 5, total=5)
    lines.close()
    assert said[-1] == "frames: 5 of 5, ended after 0:05"


def test_a_job_that_does_not_report_for_long_is_told_of_all_the_same(said, monkeypatch):
    monkeypatch.setattr("midway_hub._progress.FIRST", 0.0)
    with told(said.append) as lines:
        lines.update("levels", 0, 3)
        before, end = len(said), time.monotonic() + 10
        while len(said) == before and time.monotonic() < end:
            time.sleep(0.05)
    assert said[before].startswith("levels: 0 of 3, going on after")


def test_durations_are_read_as_clocks_are():
    assert [duration(seconds) for seconds in (0, 59.6, 125, 3725)] == ["0:00", "1:00", "2:05", "1:02:05"]


@pytest.fixture
def errors(monkeypatch):
    """What the console writes to a stderr that is no terminal, every report told."""
    monkeypatch.setattr("midway_hub._progress.FIRST", 0.0)
    monkeypatch.setattr("midway_hub._progress.LONGEST", 0.0)
    written = io.StringIO()
    monkeypatch.setattr(console, "ERR", Console(file=written, force_terminal=False, width=40))
    return written


def test_without_a_terminal_steps_are_lines_on_stderr(errors, capsys):
    with console.step_bars() as bars:
        bars("features of [a] long name: frames", 1, 8)
    assert "features of [a] long name: frames: 1 of 8, going on after 0:00\n" in errors.getvalue()
    assert capsys.readouterr().out == ""


def test_a_quiet_job_writes_nothing(errors):
    with console.step_bars(enabled=False) as bars:
        bars("frames", 1, 8)
    assert errors.getvalue() == ""


def test_on_a_terminal_steps_are_bars(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "ERR", Console(file=written, force_terminal=True, width=80))
    with console.step_bars() as bars:
        for done in range(4):
            bars("frames", done, 8)
            time.sleep(0.01)
    assert "3/8" in written.getvalue()
    assert re.search(r"\d a second", written.getvalue())
    assert "going on" not in written.getvalue()


def test_speed_is_steps_a_second_or_seconds_a_step():
    assert (speed(12.54), speed(0.4)) == ("12.5 a second", "2.5 s each")


def test_downloads_are_told_to_whoever_asks_and_only_then(said):
    assert download_watcher("x.mp4") is None
    with watched_downloads(lambda *report: said.append(report)):
        download_watcher("x.mp4")(3_500_000, 10_000_000)
    assert said == [("downloading x.mp4, MB", 3, 10)]
    assert download_watcher("x.mp4") is None


def test_extraction_tells_of_files_and_of_the_one_at_hand(errors):
    source = Source((Path("clips/long.mp4"),), "clips/long.mp4", "video")
    with console.extraction_bars() as bars:
        bars(Progress(source, file=3, files=12, done=40, total=300, state="working"))
        bars(Progress(source, file=3, files=12, done=300, total=300, state="done"))
    assert "files: 2 of 12 (long.mp4: 40 of 300), going on" in errors.getvalue()
    assert "files: 3 of 12" in errors.getvalue()


def test_training_tells_how_far_it_is_between_two_logs(monkeypatch, caplog):
    monkeypatch.setattr("midway_hub._progress.FIRST", 0.0)
    monkeypatch.setattr("midway_hub._progress.LONGEST", 0.0)
    caplog.set_level("INFO", "midway_hub")
    report = ProgressReport(Timeline(steps=2000, steps_per_epoch=10, batch_size=8, visits_per_step=8), 0, shown=True)
    report.step(1)
    report.close()
    assert "steps: 1 of 2000" in caplog.text
