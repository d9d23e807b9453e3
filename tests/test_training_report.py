"""The page of a run: it says what the run directory says, in whatever state that is, and needs nothing but itself."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from run_folders import CONFIG, RUN, metrics, write_run

from midway_hub.training.report import write_report
from midway_hub.training.report.curves import plots_of, running_mean, thin
from midway_hub.training.report.record import read_run
from midway_hub.training.report.svg import short, ticks


class Balanced(HTMLParser):
    """Fails on tags that are not closed in order; collects what is read aloud and what is fetched."""

    VOID = ("meta", "img", "path", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID or (tag == "path" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(page):
    parser = Balanced()
    parser.feed(page.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


def test_page_needs_nothing_but_itself(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(run / "samples" / "pairs.png")
    page = write_report(run)
    parser = read(page)
    assert page == run / "report.html"
    assert "script" not in parser.tags
    assert "link" not in parser.tags
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in parser.links)
    assert not re.search(r"url\(|https?://", page.read_text())


def test_page_says_what_the_run_says(tmp_path):
    text = " ".join(read(write_report(write_run(tmp_path / "run"))).text)
    for said in (
        "finished",
        "step 100 of 100",
        "paper/bdd_vits",
        "2 x cpu (x86_64)",
        "2,000",  # 100 steps of 4 visits with 5 pairs
        "clip_student_only",
        "too short: it has 3 frames",
        "not finite",
        "node1",
        "copy_error_8",
        "coarse flow: epe",
        "level_8",
        "3.25",
        "method.head.prototypes",
    ):
        assert said in text, said
    assert "lr_counts_repeats" not in text.split("Settings")[1].split("Data")[0]


def test_derived_numbers_are_shown_with_their_reasons(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "derived.json").write_text(json.dumps([{"name": "steps", "value": 100, "reason": "2 epochs x 50"}]))
    text = " ".join(read(write_report(run)).text)
    assert "Derived numbers" in text
    assert "2 epochs x 50" in text


def test_run_that_logged_nothing_has_a_page(tmp_path):
    run = write_run(tmp_path / "run", run={"state": "running"}, data=None, lines=[])
    parser = read(write_report(run))
    assert "svg" not in parser.tags
    assert "Nothing was logged yet" in " ".join(parser.text)
    assert "data.json is not there" in " ".join(parser.text)


def test_half_a_line_and_a_broken_file_are_named_not_raised(tmp_path):
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 11')
    (run / "run.json").write_text('{"state": "runn')
    text = " ".join(read(write_report(run)).text)
    assert "metrics.jsonl: lines that cannot be read: 1" in text
    assert "run.json cannot be read" in text
    assert "dynamics_8" in text


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither run\.json nor config\.yaml.*pretrain --run-dir"):
        write_report(tmp_path)


def test_everything_from_outside_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    config = {**CONFIG, "recipe": evil, "compat": {evil: True}}
    run = {**RUN, "state": evil, "error": evil, "incidents": [{"kind": evil, "step": 60, "why": [{evil: evil}]}]}
    lines = [{"step": 10, f"{evil}/x": 1.0, evil: 2.0}, {"step": 60, evil: 1.0}]
    data = {"fingerprint": {evil: evil}, "rejected": [{"file": evil, "reason": evil}]}
    folder = write_run(tmp_path / "run", config=config, run=run, data=data, lines=lines)
    page = write_report(folder, sheets={evil: np.zeros((4, 4, 3), np.uint8)})
    assert "<script" not in page.read_text()
    assert "script" not in read(page).tags


def test_run_without_a_sign_of_life_is_said_to_be_silent(tmp_path):
    def page(minutes):
        beat = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat("T", "seconds")
        run = {**RUN, "state": "running", "heartbeat": {"time": beat, "step": 50}}
        return " ".join(read(write_report(write_run(tmp_path / str(minutes), run=run))).text)

    assert "no sign of life for 30 minutes" in page(30)
    assert "no sign of life" not in page(1)


def test_steps_logged_again_after_a_resume_count_once(tmp_path):
    lines = [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 2.0}, {"step": 20, "loss": 3.0}, {"step": 30, "loss": 4.0}]
    record = read_run(write_run(tmp_path / "run", lines=lines))
    assert record.steps == [10, 20, 30]
    assert record.series["loss"] == [1.0, 3.0, 4.0]


def test_values_that_are_not_finite_leave_gaps(tmp_path):
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 3.0}]
    run = write_run(tmp_path / "run", lines=lines)
    (curve,) = plots_of(read_run(run))["Losses"][0].curves
    assert curve.raw == [(1, 1.0), (3, 3.0)]
    read(write_report(run))


def test_level_and_copy_error_share_a_plot(tmp_path):
    plots = {plot.title: plot for plot in plots_of(read_run(write_run(tmp_path / "run")))["Losses"]}
    assert [curve.name for curve in plots["Dynamics, level 8"].curves] == ["dynamics_8", "copy_error_8"]


def test_collapse_is_marked_where_the_dino_loss_is(tmp_path):
    plots = {plot.title: plot for plot in plots_of(read_run(write_run(tmp_path / "run")))["Losses"]}
    assert plots["DINO"].reference == ("collapse: ln(256)", math.log(256))
    assert plots["Total"].reference is None


def test_all_ways_to_get_a_probe_s_number_share_a_plot(tmp_path):
    (plot,) = plots_of(read_run(write_run(tmp_path / "run")))["Probes"]
    assert plot.title == "coarse flow: epe"
    assert [curve.label for curve in plot.curves] == ["level_8", "zero"]


def test_resumes_and_incidents_are_drawn_into_the_curves(tmp_path):
    page = write_report(write_run(tmp_path / "run")).read_text()
    assert page.count("<path class='resume'") == page.count("<path class='incident'") > 5
    assert "<title>step 60: not finite." in page


def test_every_metric_is_drawn_exactly_once(tmp_path):
    names = [name for line in metrics() for name in line if name not in ("step", "epoch", "time")]
    sections = plots_of(read_run(write_run(tmp_path / "run")))
    drawn = [curve.name for plots in sections.values() for plot in plots for curve in plot.curves]
    assert sorted(drawn) == sorted(set(names))


def test_thinning_keeps_every_peak():
    points = [(step, 100.0 if step == 4321 else -50.0 if step == 777 else 0.0) for step in range(10_000)]
    thinned = thin(points)
    assert (4321, 100.0) in thinned
    assert (777, -50.0) in thinned
    assert points[-1] in thinned
    assert len(thinned) <= 502
    assert thinned == sorted(thinned)


def test_running_mean_weighs_by_distance():
    values, window = [3.0, math.nan, 1.0, 4.0], 2
    weights = [math.exp(-distance / window) for distance in range(3)]
    wanted = (4.0 * weights[0] + 1.0 * weights[1] + 3.0 * weights[2]) / sum(weights)
    means = running_mean(values, window)
    assert means[0] == 3.0
    assert math.isnan(means[1])
    assert means[3] == pytest.approx(wanted)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.7, 12.2), (1e-9, 5e-9), (250.0, 65536.0)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    step = found[1] - found[0]
    assert float(f"{step:.0e}") == pytest.approx(step)
    assert min(found) >= low - 1e-9 * abs(low)
    assert max(found) <= high * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (5e-07, "5e-07"), (12.34567, "12.35"), (12_000, "12k"), (2.5e6, "2.5M")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_page_is_written_elsewhere_if_asked_and_replaces_an_older_one(tmp_path):
    run, out = write_run(tmp_path / "run"), tmp_path / "page.html"
    out.write_text("old")
    assert write_report(run, out=out) == out
    assert "finished" in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]
