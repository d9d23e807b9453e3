"""`midway-hub info`: what a folder, a file or a repository holds, without its weights."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import make_tiny_net
from hub_files import TINY, WEIGHTS
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from midway_hub.cli import app
from midway_hub.cli_info import excerpt
from midway_hub.hub import write_model_card
from midway_hub.hub.description import describe
from midway_hub.processing import MidwayImageProcessor
from midway_hub.registry import DEFAULT_MODEL, list_models

pytest_plugins = ["hub_fixtures"]

SMALL = {"embed_dim": 12, "num_heads": 2, "depth": 2, "levels": (0,)}
FLOW = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 8, "tile": (32, 48)}
CLASSES = {"classes": tuple(f"class {n}" for n in range(10)), "palette": ((1, 2, 3),) * 10, "layers": (1,)}


@pytest.fixture
def saved(tmp_path):
    """Save a small network, and how it wants frames."""

    def make(name="net", **changes):
        folder = tmp_path / name
        make_tiny_net(**{**SMALL, **changes}).save_pretrained(folder)
        MidwayImageProcessor(fit="shortest", size=64, multiple=16).save_pretrained(folder)
        return folder

    return make


def info(*arguments):
    result = CliRunner().invoke(app, ["info", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def line_of(text, name):
    """What is said of one thing."""
    return next(line.removeprefix(f"  {name}").strip() for line in text.splitlines() if line.startswith(f"  {name} "))


@pytest.mark.parametrize(
    ("changes", "flow", "segmentation"),
    [
        ({}, "none", "none"),
        ({"flow_head": FLOW}, "on whole frames", "none"),
        ({"flow_head": {**FLOW, "tiled": True}}, "in windows of 32×48 pixels", "none"),
        (
            {"segmentation_head": CLASSES},
            "none",
            "linear, 10 classes: " + ", ".join(f"class {n}" for n in range(8)) + ", ...",
        ),
    ],
)
def test_the_heads_of_a_folder_are_told(saved, changes, flow, segmentation):
    text = info(saved(**changes))
    assert line_of(text, "flow head") == flow
    assert line_of(text, "segmentation head") == segmentation


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "encoder", "width 12, 2 blocks of 2 heads, patches of 16×16 pixels, positions of 64×64 pixels"),
        ({}, "dynamics", "levels 0; 10 motion tokens of width 24"),
        ({"dynamics": False, "target_network": "shared"}, "dynamics", "none: an encoder alone"),
        ({"target_network": "shared"}, "networks", "one encoder for source and target frames"),
        ({"target_network": "ema"}, "networks", "student and teacher (EMA)"),
    ],
)
def test_the_architecture_of_a_folder_is_told(saved, changes, name, words):
    assert line_of(info(saved(**changes)), name) == words


def test_weights_processor_and_card_of_a_folder_are_told(saved):
    folder = saved()
    write_model_card(folder, base=DEFAULT_MODEL)
    text = info(folder)
    count = sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    assert line_of(text, "weights").startswith(f"{count:,} parameters, F32, ")
    assert line_of(text, "processor").startswith("fit shortest, size 64, multiple 16, image_mean [0.485")
    assert line_of(text, "files") == "README.md, config.json, model.safetensors, preprocessor_config.json"
    assert "# A Midway Network" in text
    assert "<!--" not in text
    assert text.count("```") % 2 == 0


def test_a_folder_that_does_not_say_how_it_wants_frames_is_told_as_such(saved):
    folder = saved()
    (folder / "preprocessor_config.json").unlink()
    assert line_of(info(folder), "processor").startswith("does not say")


def test_the_parameters_of_shards_are_counted_together(tmp_path):
    net = make_tiny_net(**SMALL)
    net.save_pretrained(tmp_path / "whole")
    net.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    whole, shards = (describe(tmp_path / name).weights for name in ("whole", "shards"))
    assert len(shards.files) > 1
    assert (shards.parameters, shards.dtypes) == (whole.parameters, whole.dtypes)


@pytest.mark.parametrize("kind", ["beside", "embedded"])
def test_a_single_file_is_described_like_its_folder(saved, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = saved(flow_head=FLOW)
    file = tmp_path / "alone" / "mine.safetensors"
    file.parent.mkdir()
    config = (folder / "config.json").read_text()
    if kind == "beside":
        shutil.copy(folder / WEIGHTS, file)
        (file.parent / "config.json").write_text(config)
    else:
        save_file(load_file(folder / WEIGHTS), file, metadata={"config": config})
    found = json.loads(info(file, "--json", "--cache-dir", tmp_path / "cache"))
    assert found["source"] == f"file {file}"
    assert found["config"]["flow_head"]["tile"] == [32, 48]
    assert found["weights"]["parameters"] == describe(folder).weights.parameters


@pytest.mark.parametrize("name", list_models())
def test_a_registered_name_shows_its_card(name):
    assert info(name).startswith(f"# {name}")
    assert json.loads(info(name, "--json"))["name"] == name


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: at / "nothing" / "here", "There is no file or folder"),
        (lambda at: at, "has no config.json, so it is not a saved MidwayNetwork"),
        (lambda at: at / "old.pth", "midway-hub convert"),
        (lambda at: at / "half.safetensors", "is not a safetensors file"),
        (lambda at: "midway_vits_bdd", "midway_vits_bdd100k"),
    ],
)
def test_what_cannot_be_described_says_why(tmp_path, make, says):
    for name in ("old.pth", "half.safetensors"):
        (tmp_path / name).write_bytes(b"0123")
    result = CliRunner().invoke(app, ["info", str(make(tmp_path))])
    assert result.exit_code == 1
    assert says in " ".join(result.stderr.split())


def test_a_repository_is_described_without_its_weights(hub, process, tmp_path):
    commit = hub.put("org/tiny", {**TINY, "README.md": b"# Mine\n"})
    found = process.call("describe", "org/tiny", cache_dir=str(tmp_path))["value"]
    assert (found["source"], found["commit"], found["card"]) == ("Hub repo org/tiny", commit, "# Mine\n")
    assert found["weights"] is None
    assert hub.bodies(WEIGHTS) == 0
    process.resolve("org/tiny", cache_dir=str(tmp_path))
    assert process.call("describe", "org/tiny", cache_dir=str(tmp_path))["value"]["weights"]["parameters"] > 0


def test_a_repository_without_a_card_is_described_too(hub, process, tmp_path):
    hub.put("org/tiny", TINY, ref="v1")
    found = process.call("describe", "org/tiny@v1", cache_dir=str(tmp_path))["value"]
    assert found["card"] == ""
    assert Path(found["directory"]).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ("# A\n", "# A\n"),
        ("---\nlicense: mit\n---\n# A\n", "# A\n"),
        ("<!-- made -->\n# A\n", "# A\n"),
        ("\n".join("abcdefghijklmnop"), "\n".join("abcdefghijkl") + "\n\n(16 lines in all: README.md)\n"),
        ("# A\n```\n" + "x\n" * 20 + "```\n", "# A\n\n(23 lines in all: README.md)\n"),
    ],
)
def test_of_a_card_the_first_lines_are_shown(card, shown):
    assert excerpt(card) == shown
