"""What every command shares: errors and interruptions are a line, paths begin at home, progress stays off stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from midway_hub import _console as console

SAMPLE = str(files("midway_hub.samples") / "highway.mp4")


def app_of(function):
    app = typer.Typer()
    console.command(app)(function)
    return app


def test_an_interruption_is_one_line_and_code_130():
    def work() -> None:
        raise KeyboardInterrupt

    ran = CliRunner().invoke(app_of(work))
    assert ran.exit_code == 130
    assert ran.stderr.count("\n") == 1
    assert "interrupted" in ran.stderr


def test_an_interruption_outside_a_command_is_one_line_and_code_130(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        console.run(interrupted)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sys.executable).with_name("midway-hub")), "trajectories", SAMPLE, "-o", "x.png", "--size", "480"],
        [
            sys.executable,
            "-m",
            "midway_hub.training",
            "evaluate",
            "dynamics",
            "--dataset",
            "world",
            "--worlds",
            "9999",
            "-m",
            "midway_pico",
        ],
    ],
    ids=["midway-hub", "training"],
)
def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path, command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    for line in started.stderr:  # the first line of progress
        if "going on after" in line:
            break
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert started.returncode in (130, -signal.SIGINT), err
    assert "interrupted" in err
    assert "Traceback" not in out + err


def test_paths_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []

    def work(out: Path = Path()) -> None:
        seen.append(out)

    for given in ("~", "~/x", "x"):
        assert CliRunner().invoke(app_of(work), ["--out", given]).exit_code == 0
    assert seen == [tmp_path, tmp_path / "x", Path("x")]


def test_a_slow_command_leaves_stdout_to_its_json(monkeypatch):
    monkeypatch.setattr("midway_hub._progress.FIRST", 0.0)

    def work() -> None:
        with console.step_bars() as bars:
            bars("frames", 1, 2)
            time.sleep(0.01)
        console.print_json({"done": 2})

    ran = CliRunner().invoke(app_of(work))
    assert json.loads(ran.stdout) == {"done": 2}
    assert "frames: 1 of 2" in ran.stderr
