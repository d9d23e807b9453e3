"""The commands of `python -m midway_hub.training`, run as a user runs them."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from midway_hub import MidwayNetwork
from midway_hub.training.__main__ import app

PROBED = ("probes.every_steps=4", "probes.worlds=4")
QUICK = ("steps=4", "engine.log_every=2", "engine.checkpoint_every_steps=2", "data.workers=0")


def process(*arguments):
    """Run a command as a process of its own; its exit code, output and errors."""
    ran = subprocess.run(
        [sys.executable, "-m", "midway_hub.training", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return ran.returncode, ran.stdout, ran.stderr


def command(*arguments):
    """Run a command in this process, which has imported everything already; else as `process`."""
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of four steps on synthetic worlds."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    code, out, err = command(
        "pretrain", "smoke", *QUICK, "probes.every_steps=4", "probes.worlds=4", "--run-dir", folder
    )
    assert code == 0, err
    assert "finished at step 4" in out
    return folder


def test_pretraining_leaves_weights_that_load(run_dir):
    net = MidwayNetwork.from_pretrained(run_dir / "export")
    frame = torch.randn(1, 3, 64, 64)
    assert net.infer_motion(frame, frame).levels == (4, 2, 1)


def test_a_run_leaves_what_its_page_needs(run_dir):
    assert (run_dir / "report.html").stat().st_size > 10_000
    assert {entry["name"] for entry in json.loads((run_dir / "derived.json").read_text())} >= {
        "steps",
        "pairs per step",
    }
    assert len(list((run_dir / "samples").iterdir())) == 3


def test_probes_are_logged_with_the_losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all("dino" in line for line in lines if line.get("loss"))
    probed = {key for line in lines for key in line if key.startswith("probe/")}
    assert any("coarse_flow" in key for key in probed)
    assert any("prediction" in key for key in probed)


def test_the_same_command_on_a_finished_run_changes_nothing(run_dir):
    before = (run_dir / "export" / "model.safetensors").stat().st_mtime_ns
    code, out, _ = command("pretrain", "smoke", *QUICK, *PROBED, "--run-dir", run_dir)
    assert code == 0
    assert "finished at step 4" in out
    assert (run_dir / "export" / "model.safetensors").stat().st_mtime_ns == before


def test_resume_refuses_what_would_change_what_is_learned(run_dir):
    code, _, err = command("resume", run_dir, "method.base_lr=1")
    assert code == 1
    assert "method.base_lr: 0.004 -> 1.0" in err


def test_resume_allows_what_does_not(run_dir):
    assert command("resume", run_dir, "engine.log_every=1", "data.workers=1")[0] == 0


def test_resume_goes_on_for_longer_and_keeps_what_was_exported(run_dir, tmp_path):
    longer = shutil.copytree(run_dir, tmp_path / "longer")
    before = load_file(run_dir / "export" / "model.safetensors")
    code, out, err = command("resume", longer, "steps=6")
    assert code == 0, err
    assert "steps: 4 -> 6" in out
    assert "finished at step 6" in out
    kept = load_file(longer / "export_step_4" / "model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in before.items())
    assert json.loads((longer / "run.json").read_text())["lengths"][0]["to"] == 6
    assert "from 4 to 6 steps at step 4" in (longer / "export" / "README.md").read_text()
    assert command("resume", longer, "steps=5")[0] == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"a: [", b"a: 1\na: 2\n"])
def test_resume_of_a_run_with_a_damaged_configuration_is_one_line(run_dir, tmp_path, content):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    code, _, err = command("resume", tmp_path / "run")
    assert code == 1
    assert "config.yaml is damaged" in err
    assert "Traceback" not in err


def test_a_recipe_is_shown_with_what_its_keys_mean(tmp_path):
    code, out, _ = command("recipes", "--show", "smoke")
    assert code == 0
    assert "# Length of the run in optimizer steps." in out
    (tmp_path / "mine.yaml").write_text(out)
    assert command("pretrain", tmp_path / "mine.yaml", "--dry-run")[0] == 0
    assert json.loads(command("recipes", "--show", "smoke", "--json")[1])["steps"] == 30


def test_resume_of_a_folder_that_is_no_run_says_so(tmp_path):
    code, _, err = command("resume", tmp_path)
    assert code == 1
    assert "is no run directory" in err
    assert "pretrain" in err


def test_a_dry_run_prints_every_number_and_writes_nothing(tmp_path):
    code, out, _ = command("pretrain", "smoke", "--dry-run", "--run-dir", tmp_path / "run")
    assert code == 0
    assert "peak learning rate" in out
    assert "method.base_lr 0.004 x 8/256" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_speaks_json():
    code, out, _ = command("pretrain", "smoke", "--dry-run", "--json")
    assert code == 0
    numbers = json.loads(out)
    assert numbers["pairs per step"] == 8


def test_trace_prints_a_step_as_a_reading_map():
    code, out, err = command("trace", "smoke")
    assert code == 0, err
    for expected in ("dynamics_4", "student_matrices", "teacher", "losses"):
        assert expected in out


def test_export_writes_half_precision_with_a_licence(run_dir, tmp_path):
    code, out, err = command("export", run_dir, tmp_path / "net", "--dtype", "float16", "--licence", "cc0-1.0")
    assert code == 0, err
    assert "MidwayNetwork.from_pretrained" in out
    assert MidwayNetwork.from_pretrained(tmp_path / "net")
    weights = load_file(tmp_path / "net" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert "license: cc0-1.0" in (tmp_path / "net" / "README.md").read_text()


def test_report_writes_where_it_is_told(run_dir, tmp_path):
    code, _, _ = command("report", run_dir, "--out", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("pretrain", "smok"), "did you mean smoke"),
        (("pretrain", "smoke", "engine.presision=bf16"), "did you mean 'engine.precision'?"),
        (("pretrain", "smoke", "data.source=videos", "data.path=nowhere"), "nowhere"),
        (("pretrain", "paper/bdd_vits"), "data.source=videos needs data.path"),
        (("export", "nowhere", "out"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("pack", "nowhere.mp4", "-o", "pack"), "nowhere.mp4"),
        (("pack", "x.mp4", "-o", "pack", "-s", "form=gif"), "'jpeg' or 'h264'"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*arguments)
    assert code == 1
    assert wanted in err
    assert "Traceback" not in err


def test_an_empty_folder_of_videos_is_named_before_training(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "notes.txt").write_text("none yet")
    code, _, err = command("pretrain", "smoke", "data.source=videos", f"data.path={tmp_path / 'videos'}")
    assert code == 1
    assert str(tmp_path / "videos") in err


def test_submit_prints_the_script_without_a_cluster(tmp_path):
    pytest.importorskip("submitit")
    code, out, err = command("submit", "smoke", "--run-dir", tmp_path / "job", "--processes", 2, "--dry-run")
    assert code == 0, err
    assert "#SBATCH" in out
    assert "--ntasks-per-node=2" in out


def test_every_command_has_help():
    listed = command("--help")[1]
    for name in (
        "pretrain",
        "resume",
        "pack",
        "check-pack",
        "doctor",
        "export",
        "report",
        "trace",
        "submit",
        "recipes",
    ):
        assert name in listed
        assert command(name, "--help")[0] == 0


@pytest.mark.slow
def test_the_smoke_recipe_trains_on_real_clips(sample_videos, tmp_path):
    options = ("data.source=videos", f"data.path={sample_videos}")
    code, _, err = command("pretrain", "smoke", *options, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert MidwayNetwork.from_pretrained(tmp_path / "run" / "export").config.embed_dim == 48
    rejected = json.loads((tmp_path / "run" / "data.json").read_text())["rejected"]
    assert any("corrupted" in entry["file"] for entry in rejected)


@pytest.mark.slow
def test_packed_clips_are_checked_and_trained_on(sample_videos, tmp_path):
    clips = [sample_videos / name for name in ("cockatoo_720p.mp4", "pancake.mkv", "dog_mpeg4.mp4")]
    code, out, err = command("pack", *clips, "-o", tmp_path / "pack", "-s", "short_side=96")
    assert code == 0, err
    assert command("check-pack", tmp_path / "pack")[0] == 0
    options = ("data.source=pack", f"data.path={tmp_path / 'pack'}")
    code, _, err = command("pretrain", "smoke", *QUICK, *options, "--run-dir", tmp_path / "run")
    assert code == 0, err
    shard = next((tmp_path / "pack" / "shards").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-5000])
    code, out, _ = command("check-pack", tmp_path / "pack")
    assert code == 1
    assert shard.name in out


@pytest.mark.slow
def test_the_doctor_measures_and_advises(sample_videos):
    options = ("data.source=videos", f"data.path={sample_videos / 'udacity_highway_720p.mp4'}", "data.max_rejected=1")
    code, out, err = command("doctor", "smoke", *options, "--seconds", "0.5")
    assert code == 0, err
    assert "Video readers on these files" in out
    assert "pack" in out
