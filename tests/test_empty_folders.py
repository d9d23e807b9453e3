"""What fails leaves no folder behind that holds nothing; what was there before stays."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from midway_hub._durable import no_empty_folder
from midway_hub.app.demo import sample_clip
from midway_hub.cli import app
from midway_hub.training.__main__ import app as training

SAMPLE = sample_clip()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a broken video, and labels of the sample's size and of another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"no video")
    Image.fromarray(np.ones((720, 1280), np.uint8)).save("fits.png")
    Image.fromarray(np.ones((72, 128), np.uint8)).save("small.png")
    return tmp_path


FAILING = [
    (app, "demo broken/a.mp4 -o out"),
    (app, "demo broken/a.mp4 -o out/deep/er"),
    (app, "demo nothing.mp4 -o out"),
    (app, "demo -m nothing -o out"),
    (app, "features broken/a.mp4 -o out"),
    (app, "features broken -o out/deep"),
    (app, "motion broken/a.mp4 -o out"),
    (app, "propagate broken/a.mp4 --labels fits.png -o out"),
    (app, f"propagate {SAMPLE} --labels small.png -o out"),
    (app, f"propagate {SAMPLE} --labels fits.png -o out --start 400"),
    (app, f"segment {SAMPLE} -o out.txt --labels out --size 32"),
    (training, "pack broken --out out"),
    (training, "pretrain smoke --run-dir out data.source=videos data.path=nothing"),
    (training, "init nothing out"),
]


@pytest.mark.parametrize(("command", "line"), FAILING, ids=[line.replace(str(SAMPLE), "SAMPLE") for _, line in FAILING])
def test_a_command_that_fails_leaves_no_empty_folder(here, command, line):
    before = sorted(here.rglob("*"))
    result = CliRunner().invoke(command, line.split())
    assert result.exit_code == 1, result.output
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("line", ["demo broken/a.mp4 -o out", "features broken -o out", "demo -m nothing -o out/deep"])
def test_a_folder_that_was_there_stays_empty_as_it_was(here, line):
    (here / "out").mkdir()
    assert CliRunner().invoke(app, line.split()).exit_code == 1
    assert list((here / "out").iterdir()) == []


@pytest.mark.parametrize("deep", ["a", "a/b", "a/b/c"])
def test_folders_with_something_in_them_stay(tmp_path, deep):
    def fail():
        with no_empty_folder(tmp_path / deep):
            (tmp_path / deep).mkdir(parents=True)
            (tmp_path / "a" / "kept.txt").write_text("kept")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept.txt"]


def test_a_folder_that_is_never_made_is_no_trouble(tmp_path):
    with no_empty_folder(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
