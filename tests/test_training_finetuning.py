"""Finetuning runs as a user starts them: from a checkpoint to an exported network with a head."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner

from midway_hub import MidwayImageProcessor, MidwayNetwork
from midway_hub.flow_io import write_flow
from midway_hub.training.__main__ import app
from midway_hub.training.data.views import normalise

SMALL = (
    "data.world.size=[32,48]",
    "data.world.textures.tiles=4",
    "data.batch_size=4",
    "data.workers=0",
    "engine.accelerator=cpu",
    "engine.devices=1",
    "engine.checkpoint_every_steps=2",
    "engine.log_every=1",
    "evaluation.limit=2",
)
FLOW = ("task.head={layer_dims: [8, 8, 8, 8], feature_dim: 8, last_dim: 8}",)
STEPS = 10


def command(*arguments):
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "net"
    make_tiny_net().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flow_run(pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "flow"
    options = (f"start.weights={pretrained}", "steps=4", "evaluation.every_steps=2", *SMALL, *FLOW)
    code, out, err = command("flow", "flow_synthetic_small", *options, "--run-dir", folder)
    assert code == 0, err
    assert "finished at step 4" in out
    return folder


def test_a_flow_run_exports_one_encoder_and_a_head_that_works_at_any_size(flow_run):
    net = MidwayNetwork.from_pretrained(flow_run / "export")
    assert net.config.target_network == "shared"
    assert net.has_flow_head
    assert tuple(net.config.flow_head["tile"]) == (32, 48)
    assert net.flow(torch.randn(1, 3, 37, 61), torch.randn(1, 3, 37, 61)).flow.shape == (1, 2, 37, 61)


def test_a_flow_run_logs_what_it_measured(flow_run):
    rows = [json.loads(line) for line in (flow_run / "metrics.jsonl").read_text().splitlines()]
    assert any("evaluation/flow/epe_over_zero" in row for row in rows)
    assert all(row["flow"] > 0 and row["epe_of_zero"] > 0 for row in rows if "flow" in row)


def test_the_card_says_what_it_started_from_and_gives_the_command(flow_run):
    card = (flow_run / "export" / "README.md").read_text()
    assert "optical flow head" in card
    assert "midway_hub.training flow flow_synthetic_small" in card


def test_the_page_shows_curves_and_examples(flow_run):
    assert {path.name for path in (flow_run / "samples").iterdir()} == {"0.jpg", "1.jpg", "2.jpg"}
    assert "End-point error" in (flow_run / "report.html").read_text()


def test_a_finished_run_is_exported_again_without_what_it_started_from(flow_run, tmp_path):
    copy = shutil.copytree(flow_run, tmp_path / "run")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("weights: /", "weights: /gone/"))
    assert command("export", copy, tmp_path / "out", "--dtype", "float16")[0] == 0
    again, first = (MidwayNetwork.from_pretrained(folder) for folder in (tmp_path / "out", flow_run / "export"))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_segmentation_reads_out_frozen_features_of_a_flow_network(flow_run, tmp_path):
    options = (f"start.weights={flow_run / 'export'}", "steps=2", *SMALL)
    code, _, err = command("segmentation", "segmentation_synthetic_small", *options, "--run-dir", tmp_path / "run")
    assert code == 0, err
    net, before = (MidwayNetwork.from_pretrained(folder / "export") for folder in (tmp_path / "run", flow_run))
    assert net.has_flow_head
    assert net.has_segmentation_head
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.state_dict().items())
    assert net.segment(torch.randn(1, 3, 40, 50)).labels.shape == (1, 40, 50)


@pytest.fixture(scope="module")
def otherwise_normalised(tmp_path_factory):
    """A checkpoint whose frames are normalised by numbers of its own."""
    folder = tmp_path_factory.mktemp("otherwise") / "net"
    net = make_tiny_net()
    net.image_processor = MidwayImageProcessor(image_mean=(0.5, 0.4, 0.3), image_std=(0.5, 0.25, 0.1))
    net.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["flow", "segmentation"])
@pytest.mark.parametrize("render", ["cpu", "device"])
def test_finetuning_and_its_exports_normalise_as_the_checkpoint_it_started_from(
    otherwise_normalised, tmp_path, monkeypatch, kind, render
):
    used = []

    def recording(levels, normalisation):
        used.append(normalisation.mean)
        return normalise(levels, normalisation)

    for module in ("data.supervised", "data.synthetic.examples", "evaluation.pixels"):
        monkeypatch.setattr(f"midway_hub.training.{module}.normalise", recording)
    head = FLOW if kind == "flow" else ()
    options = (f"start.weights={otherwise_normalised}", "steps=2", f"data.render={render}", *SMALL, *head)
    run = tmp_path / "run"
    code, _, err = command(kind, f"{kind}_synthetic_small", *options, "evaluation.every_steps=2", "--run-dir", run)
    assert code == 0, err
    assert set(used) == {(0.5, 0.4, 0.3)}
    shutil.rmtree(run / "export")
    assert command("export", run, tmp_path / "again")[0] == 0
    net = MidwayNetwork.from_pretrained(tmp_path / "again")
    assert net.image_processor.image_std == (0.5, 0.25, 0.1)


def test_a_resumed_run_goes_on_with_frames_as_it_began(otherwise_normalised, tmp_path):
    start = shutil.copytree(otherwise_normalised, tmp_path / "start")
    options = (f"start.weights={start}", *SMALL, *FLOW, "--run-dir", tmp_path / "run")
    assert command("flow", "flow_synthetic_small", "steps=2", *options)[0] == 0
    began = json.loads((tmp_path / "run/preprocessor_config.json").read_text())
    MidwayImageProcessor().save_pretrained(start)
    shutil.rmtree(tmp_path / "run/export")
    assert command("flow", "flow_synthetic_small", "steps=2", *options)[0] == 0
    assert json.loads((tmp_path / "run/export/preprocessor_config.json").read_text()) == began


def test_dry_run_prints_every_number_and_writes_nothing(pretrained, tmp_path):
    options = (f"start.weights={pretrained}", *SMALL, "--run-dir", tmp_path / "run", "--dry-run")
    code, out, _ = command("flow", "flow_synthetic_small", *options)
    assert code == 0
    assert "warm-up steps" in out
    assert "start.freeze=False" in out
    assert not (tmp_path / "run").exists()


def test_flow_is_finetuned_on_files(pretrained, tmp_path):
    generator = np.random.default_rng(0)
    data = tmp_path / "chairs" / "data"
    data.mkdir(parents=True)
    for number in range(1, 5):
        for frame in (1, 2):
            picture = generator.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(picture).save(data / f"{number:05}_img{frame}.ppm")
        write_flow(data / f"{number:05}_flow.flo", generator.normal(size=(64, 80, 2)).astype(np.float32))
    (tmp_path / "chairs" / "FlyingChairs_train_val.txt").write_text("1\n1\n1\n2\n")
    options = (
        f"start.weights={pretrained}",
        "steps=2",
        "data.source=files",
        "data.parts=[{name: chairs/train, repeat: 2}]",
        f"data.roots.chairs={tmp_path / 'chairs'}",
        "data.crop=[32,48]",
        "evaluation.dataset=chairs/val",
        "evaluation.every_steps=2",
        *(option for option in SMALL if ".world" not in option),
        *FLOW,
    )
    code, _, err = command("flow", "flow_synthetic_small", *options, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "data.json").read_text())["fingerprint"]["pairs"] == 6
    (data / "00002_flow.flo").unlink()
    code, _, err = command("flow", "flow_synthetic_small", *options, "--run-dir", tmp_path / "other")
    assert code == 1
    assert "00002_flow.flo" in err
    assert not (tmp_path / "other").exists()


def test_a_segmentation_run_on_files_takes_its_classes_from_the_data(pretrained, tmp_path):
    generator = np.random.default_rng(0)
    for name, high, mode in (("images", 255, "RGB"), ("labels", 2, "L")):
        (tmp_path / name).mkdir()
        for number in range(4):
            shape = (64, 80, 3) if mode == "RGB" else (64, 80)
            Image.fromarray(generator.integers(0, high, shape, dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    options = (
        f"start.weights={pretrained}",
        "steps=2",
        "data.source=files",
        "data.dataset=folder",
        f"data.root={tmp_path}",
        "data.options={classes: [mud, sky]}",
        "data.pipeline={scale: [80, 64], crop: [32, 48]}",
        "evaluation.dataset=folder",
        "evaluation.every_steps=2",
        *(option for option in SMALL if ".world" not in option),
    )
    code, _, err = command("segmentation", "segmentation_synthetic_small", *options, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert MidwayNetwork.from_pretrained(tmp_path / "run" / "export").config.segmentation_head["classes"] == [
        "mud",
        "sky",
    ]


def test_labels_off_by_one_are_caught_from_the_command_line(tmp_path):
    for name, array in (("images", np.zeros((8, 8, 3), np.uint8)), ("labels", np.ones((8, 8), np.uint8))):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "a.png")
    options = ("check-labels", "folder", "--root", tmp_path, "-s", "classes=[road,sky]")
    code, out, err = command(*options)
    assert code == 1
    assert "sky" in out
    assert "road" in err
    assert json.loads(command(*options, "--json")[1])["warnings"]


def test_a_folder_of_own_labels_is_counted_by_its_numbers_without_names(tmp_path):
    for name, array in (("images", np.zeros((8, 8, 3), np.uint8)), ("labels", np.full((8, 8), 26, np.uint8))):
        (tmp_path / name).mkdir()
        array[:4] = 3
        array[0, 0] = 255
        Image.fromarray(array).save(tmp_path / name / "a.png")
    options = ("check-labels", "folder", "--root", tmp_path)
    code, out, err = command(*options)
    assert (code, "class 26" in out, "classes=[...]" in out + err) == (0, True, True)
    for cityscapes in ("road", "sidewalk"):
        assert cityscapes not in out + err
    found = json.loads(command(*options, "--json")[1])
    assert [(row["value"], row["name"], row["pixels"]) for row in found["values"]] == [
        ("3", "class 3", 31),
        ("26", "class 26", 32),
        ("255", "(ignored)", 1),
    ]
    assert found["warnings"] == []
    assert command(*options, "-s", "classes=cityscapes")[0] == 1


def test_missing_flow_files_are_counted_from_the_command_line(tmp_path):
    scene = tmp_path / "training" / "clean" / "alley_1"
    scene.mkdir(parents=True)
    for frame in (1, 2, 3):
        Image.new("RGB", (8, 8)).save(scene / f"frame_{frame:04}.png")
    code, out, _ = command("check-flow", "sintel/train/clean", "--root", tmp_path, "--json")
    assert code == 1
    (found,) = json.loads(out)
    assert found["pairs"] == 2
    assert len(found["missing"]) == 2


def test_data_sets_are_listed_by_name():
    listed = json.loads(command("datasets", "--json")[1])
    assert "sintel/subval/clean" in listed["flow"]
    assert "ade20k/val" in listed["segmentation"]


def start(run_dir, pretrained, workers, processes):
    options = [f"start.weights={pretrained}", f"steps={STEPS}", *SMALL, *FLOW]
    options += [f"data.workers={workers}", f"engine.devices={processes}"]
    return subprocess.Popen(
        [sys.executable, "-m", "midway_hub.training", "flow", "flow_synthetic_small", *options, "--run-dir", run_dir],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "processes"), [(0, 1), (2, 1), (0, 2)])
def test_a_killed_flow_run_goes_on_to_the_same_weights(pretrained, tmp_path, workers, processes):
    whole = start(tmp_path / "whole", pretrained, workers, processes)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    killed, metrics = start(tmp_path / "killed", pretrained, workers, processes), tmp_path / "killed" / "metrics.jsonl"
    wanted, deadline = random.randint(3, STEPS - 2), time.monotonic() + 240
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= wanted):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    again = start(tmp_path / "killed", pretrained, workers, processes)
    assert again.wait(timeout=300) == 0, again.stderr.read()
    weights = [
        tmp_path / name / "checkpoints" / f"step_{STEPS}" / "network.safetensors" for name in ("whole", "killed")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
