"""Extracted features as one table."""

import csv

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from safetensors.numpy import load_file
from test_extraction_features import SMALL, make_video

from midway_hub import load_features
from midway_hub.extraction import extract_features, extract_motion


@pytest.fixture(scope="module")
def net():
    return make_tiny_net()


@pytest.fixture
def sources(tmp_path):
    make_video(tmp_path / "in/clips/one.mp4", frames=3)
    for number in range(2):
        colours = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / f"in/still_{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_a_table_has_a_row_per_frame_of_every_file(net, sources, tmp_path, format):
    extract_features(net, sources, tmp_path / "out", format=format, **SMALL)
    table = load_features(tmp_path / "out")
    assert table.sources == ("clips/one.mp4",) * 3 + ("still_0.png", "still_1.png")
    assert table.frames.tolist() == [0, 1, 2, 0, 0]
    np.testing.assert_allclose(table.timestamps, [0, 0.1, 0.2, 0, 0], atol=1e-6)
    assert table.features.shape == (len(table), 48)


def test_rows_are_the_stored_cls_tokens_in_the_order_of_the_names(net, sources, tmp_path):
    extract_features(net, sources, tmp_path / "out", **SMALL)
    stored = load_file(tmp_path / "out/still_1.png.safetensors")["cls"]
    assert np.array_equal(load_features(tmp_path / "out").features[4:], stored)


@pytest.mark.parametrize("output_format", ["grid", "tokens"])
def test_the_mean_is_over_patches_alone(net, sources, tmp_path, output_format):
    extract_features(net, sources, tmp_path / "out", output_format=output_format, **SMALL)
    picture = SMALL["processor"]([str(sources / "still_0.png")])["pixel_values"]
    with torch.no_grad():
        wanted = net.encode(picture).last.flatten(2).mean(2)
    found = load_features(tmp_path / "out", kind="mean").features[3:4]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_table_survives_being_written(net, sources, tmp_path):
    extract_features(net, sources, tmp_path / "out", **SMALL)
    table = load_features(tmp_path / "out")
    with np.load(table.save(tmp_path / "all.npz")) as archive:
        assert archive["sources"].tolist() == list(table.sources)
        assert np.array_equal(archive["features"], table.features)
    with table.save(tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header[:4] == ["source", "frame", "seconds", "feature_0"]
    assert [line[:2] for line in lines[:2]] == [["clips/one.mp4", "0"], ["clips/one.mp4", "1"]]
    np.testing.assert_allclose(np.array([line[3:] for line in lines], float), table.features, rtol=1e-6)


def test_features_of_two_networks_are_no_table(net, sources, tmp_path):
    extract_features(net, sources / "still_0.png", tmp_path / "out", **SMALL)
    other = make_tiny_net(depth=3, levels=(1,))
    extract_features(other, sources / "still_1.png", tmp_path / "out", **SMALL)
    with pytest.raises(ValueError, match=r"still_1.*still_0.* differ in network_sha256: rows would not compare"):
        load_features(tmp_path / "out")


def test_what_is_no_table_is_refused(net, sources, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_features(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no features"):
        load_features(tmp_path / "empty")
    extract_motion(net, sources / "clips/one.mp4", tmp_path / "motion", **SMALL)
    with pytest.raises(ValueError, match="holds no features but motion"):
        load_features(tmp_path / "motion")
    extract_features(net, sources / "still_0.png", tmp_path / "patches", keep=["last"], **SMALL)
    with pytest.raises(ValueError, match="written without 'cls'"):
        load_features(tmp_path / "patches")
    with pytest.raises(ValueError, match=r"written as \.npz or \.csv"):
        load_features(tmp_path / "patches", kind="mean").save(tmp_path / "table.xlsx")
