"""Names that are made from other names, none longer than the file system takes."""

import os

import numpy as np
import pytest
from PIL import Image

from midway_hub._durable import whole_file
from midway_hub.dense.writing import save_picture
from midway_hub.file_names import fitting
from midway_hub.flow_io import read_flow, write_flow
from midway_hub.training.evaluation.items import picture_file

LONG = [
    "x" * 240 + ".mp4",
    "走" * 80 + ".mp4",
    "y" * 246 + ".png",
    "é" * 120 + "." + "z" * 14,
    "n" * 255,
    "." + "a" * 254,
]


@pytest.mark.parametrize("name", ["clip.mp4", "a", "x" * 239 + ".mp4", ".hidden", "a.b.c", "名前.mov"])
def test_a_name_that_fits_stays_as_it_is(tmp_path, name):
    assert fitting(name, ".safetensors", tmp_path) == f"{name}.safetensors"


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_is_shortened_to_one_of_its_own_that_can_be_written(tmp_path, name):
    short = fitting(name, ".safetensors", tmp_path)
    (tmp_path / short).write_bytes(b"")
    assert len(os.fsencode(short)) <= 255
    assert short[:40] == name[:40]
    assert short.endswith(".safetensors")
    assert fitting(name, ".safetensors", tmp_path) == short
    others = {fitting(name[:-1] + letter, ".safetensors", tmp_path) for letter in "123"} | {short}
    assert len(others) == 4


def test_a_shortened_name_keeps_its_ending_and_whole_letters(tmp_path):
    short = fitting("走" * 83 + ".mp4", ".npz", tmp_path)
    assert short.startswith("走走")
    assert short.endswith(".mp4.npz")
    assert short.partition("~")[0].strip("走") == ""


def test_names_that_are_no_text_are_shortened_too(tmp_path):
    name = os.fsdecode(b"\xff" * 250)
    assert len(os.fsencode(fitting(name, ".npz", tmp_path))) <= 255


def test_a_folder_that_takes_less_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pathconf", lambda folder, name: 143, raising=False)
    assert len(os.fsencode(fitting("x" * 200, ".npz", tmp_path))) <= 143


@pytest.mark.parametrize("stem", ["x" * 250, "走" * 83, "é" * 125])
@pytest.mark.parametrize("ending", [".flo", ".npz"])
def test_what_is_written_whole_may_have_the_longest_name_there_is(tmp_path, stem, ending):
    flow = np.ones((2, 3, 2), np.float32)
    write_flow(tmp_path / f"{stem}{ending}", flow)
    assert (read_flow(tmp_path / f"{stem}{ending}").flow == flow).all()
    save_picture(Image.new("RGB", (2, 2)), tmp_path / f"{stem}.png")
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}{ending}", f"{stem}.png"}


def test_a_long_name_is_beside_while_it_is_written_with_its_ending(tmp_path):
    with whole_file(tmp_path / ("x" * 251 + ".mp4")) as beside:
        assert beside.suffix == ".mp4"
        beside.write_bytes(b"x")


@pytest.mark.parametrize("name", ["走" * 200, "é" * 130, "x" * 300, "day/clip 走走"])
def test_pictures_of_items_have_names_that_fit(tmp_path, name):
    file = picture_file(tmp_path, 7, name)
    file.write_bytes(b"")
    assert file.name.startswith("000007_")
    assert file.suffix == ".png"
