"""From a run directory to a network of the hub."""

import shlex
import shutil

import pytest
import safetensors.torch
import torch
from conftest import TINY
from run_folders import CONFIG, write_run

from midway_hub import MidwayNetwork
from midway_hub.cards import MARKER
from midway_hub.processing import MidwayImageProcessor
from midway_hub.training.engine.checkpoint import Checkpoint, Checkpoints
from midway_hub.training.export import ExportError, export_run
from midway_hub.training.export.card import write_card
from midway_hub.training.export.command import command_of
from midway_hub.training.methods import make_method
from midway_hub.training.report.record import read_run
from midway_hub.training.timeline import Timeline
from midway_hub.verify import verify

SMALL = {**TINY, "depth": 3, "levels": [1, 0]}


def build(config):
    """Make the method of a saved configuration, as the commands do."""
    torch.manual_seed(config["seed"])
    timeline = Timeline(steps=100, steps_per_epoch=50, batch_size=20, visits_per_step=4)
    head = {"prototypes": 16, "hidden": 8, "bottleneck": 8}
    settings = {"warmup_epochs": 1, "head": head}
    return make_method(config["method"]["name"], settings, SMALL, timeline)


def checkpointed(folder, *, steps=(50, 100), method="midway"):
    """A run with checkpoints of a method whose weights say which step they are of."""
    run = write_run(folder, config={**CONFIG, "method": {"name": method}})
    trainable = build({"seed": 0, "method": {"name": method}})
    checkpoints = Checkpoints(run / "checkpoints", config={}, keep_last=10)
    for step in steps:
        with torch.no_grad():
            trainable.network.model.teacher.cls_token.fill_(step / 100)
        checkpoints.save(Checkpoint(step, trainable.network.state_dict(), {}, {}, []))
    return run, trainable


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A finished run of `midway`, not to be changed."""
    return checkpointed(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def newest(a_run, tmp_path_factory):
    """What is exported by default."""
    out = tmp_path_factory.mktemp("exports") / "newest"
    return export_run(a_run[0], out, build=build, licence="cc-by-4.0")


@pytest.fixture(scope="module")
def earlier(a_run, tmp_path_factory):
    """An earlier step, in half precision, into a folder that is there and empty."""
    return export_run(a_run[0], tmp_path_factory.mktemp("earlier"), build=build, step=50, dtype="float16")


def holds_weights_of(out, trainable):
    """Whether an exported folder holds exactly a method's weights."""
    stored, wanted = MidwayNetwork.from_pretrained(out).state_dict(), trainable.network.model.state_dict()
    return stored.keys() == wanted.keys() and all(torch.equal(value, wanted[key]) for key, value in stored.items())


def step_of(out):
    return 100 * MidwayNetwork.from_pretrained(out).teacher.cls_token.mean().item()


def test_exported_weights_load_and_are_those_of_the_checkpoint(a_run, newest):
    assert holds_weights_of(newest, a_run[1])
    assert MidwayNetwork.from_pretrained(newest).config.drop_path_rate == 0
    assert MidwayImageProcessor.from_pretrained(newest).multiple == 16


def test_a_run_that_kept_no_best_weights_says_how_to_keep_them(a_run, tmp_path):
    run, _ = a_run
    for folder in (run / "checkpoints").iterdir():
        assert (folder / "engine.json").is_file()
    with pytest.raises(ExportError, match=r"holds no best weights: .*evaluation\.keep_best=flow/epe"):
        export_run(run, tmp_path / "out", build=build, best=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_dino_exports_an_encoder_without_dynamics(tmp_path):
    run, trainable = checkpointed(tmp_path / "run", method="dino")
    out = export_run(run, tmp_path / "out", build=build)
    assert holds_weights_of(out, trainable)
    assert MidwayNetwork.from_pretrained(out).config.dynamics is False


def test_exported_folder_passes_every_check(newest, earlier):
    checks = [*verify(newest), *verify(earlier)]
    assert [check.name for check in checks if check.passed is not True] == []
    assert "golden outputs" in [check.name for check in checks]


def test_newest_checkpoint_is_taken_unless_a_step_is_asked_for(newest, earlier):
    assert step_of(newest) == 100
    assert step_of(earlier) == 50


def test_damaged_newest_checkpoint_is_passed_over_and_left_alone(tmp_path):
    run, _ = checkpointed(tmp_path / "run")
    weights = run / "checkpoints" / "step_100" / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    assert step_of(export_run(run, tmp_path / "out", build=build)) == 50
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_weights_are_stored_in_the_dtype_asked_for(newest, earlier):
    for out, dtype in ((newest, torch.float32), (earlier, torch.float16)):
        stored = safetensors.torch.load_file(out / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}


def test_card_holds_the_facts_of_the_run(newest):
    card = (newest / "README.md").read_text()
    assert "\nlicense: cc-by-4.0\n" in card.split("---")[1]
    assert MARKER in card
    for fact in (
        "# newest\n",
        "| recipe | paper/bdd_vits |",
        "| optimizer steps | 100 of 100 |",
        "| frame pairs seen | 2,000 |",
        "| devices | 2 x cpu (x86_64) |",
        "| hours | 0.01 ",  # 100 steps of 0.5 s
        "| oddities of the released recipe that are on | clip_student_only |",
        "| items | 70 |",
        "| rejected files | 1 |",
        "| dynamics_8 | 1 | 100 |",
        "| probe/coarse_flow/level_8/epe | 3.25 | 100 |",
        "| torch | 2.15.0 |",
        "| embed_dim | 48 |",
    ):
        assert fact in card, fact
    assert "Not the end of the run" not in card
    assert "learning_rate" not in card


def test_card_of_an_earlier_step_says_so_and_knows_nothing_later(earlier):
    card = (earlier / "README.md").read_text()
    assert "after 50 of 100 steps" in card
    assert "| dynamics_8 | 1.25 | 50 |" in card
    assert "coarse_flow" not in card
    assert "No licence was stated" in card
    assert "license:" not in card


def test_command_of_a_run_names_what_differs_from_its_recipe(tmp_path):
    from midway_hub.training.config import load_config

    overrides = ["seed=3", "data.source=videos", "data.path=/home/somebody/clips", "views.global_area=[0.5, 1.0]"]
    config = load_config("smoke", overrides).to_dict()
    command = command_of(read_run(write_run(tmp_path / "run", config=config)))
    words = shlex.split(command)
    assert words[:5] == ["python", "-m", "midway_hub.training", "pretrain", "smoke"]
    assert sorted(words[5:]) == ["data.path=PATH", "data.source=videos", "seed=3", "views.global_area=[0.5, 1.0]"]
    assert load_config("smoke", words[5:]).views == load_config("smoke", overrides).views


def test_command_of_a_recipe_that_is_gone_points_to_the_run(tmp_path):
    record = read_run(write_run(tmp_path / "run", config={**CONFIG, "recipe": "gone.yaml"}))
    assert command_of(record) == "python -m midway_hub.training pretrain config.yaml  # of the run"


def test_cells_of_the_card_cannot_break_its_tables(newest, tmp_path):
    data = {"fingerprint": {"kind": "a|b\nc"}, "rejected": []}
    record = read_run(write_run(tmp_path / "run", data=data))
    shutil.copy(newest / "config.json", tmp_path)
    card = write_card(tmp_path, record, step=100, licence=None, name="net").read_text()
    assert "| kind | a\\|b c |" in card


def test_folder_with_files_is_refused_and_kept(a_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out is not empty; choose another folder"):
        export_run(a_run[0], tmp_path / "out", build=build)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 7}, r"no checkpoint of step 7; there are: \[50, 100\]"),
        ({"build": lambda config: build({**config, "method": {"name": "dino"}})}, "does not fit its config.yaml"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(a_run, tmp_path, changes, message):
    with pytest.raises(ExportError, match=message):
        export_run(a_run[0], tmp_path / "out", **{"build": build, **changes})
    assert list(tmp_path.iterdir()) == []


def test_run_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ExportError, match="has no whole checkpoint: there is none"):
        export_run(write_run(tmp_path / "run"), tmp_path / "out", build=build)


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    run, trainable = checkpointed(tmp_path / "run", steps=())
    with torch.no_grad():
        trainable.network.model.student.cls_token.fill_(float("nan"))
    checkpoints = Checkpoints(run / "checkpoints", config={})
    checkpoints.save(Checkpoint(100, trainable.network.state_dict(), {}, {}, []))
    with pytest.raises(ExportError, match=r"not finite: student\.cls_token; export an earlier step"):
        export_run(run, tmp_path / "out", build=build)
    assert not (tmp_path / "out").exists()


def test_network_that_does_not_pass_its_checks_is_not_put_in_place(a_run, tmp_path, monkeypatch):
    from midway_hub.training.export import network

    def save_other_golden(net, folder):
        shutil.copy(folder / "model.safetensors", folder / "golden.safetensors")

    monkeypatch.setattr(network, "save_golden", save_other_golden)
    with pytest.raises(ExportError, match="does not pass its checks: golden outputs"):
        export_run(a_run[0], tmp_path / "out", build=build)
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtype_is_refused_with_those_that_there_are(a_run, tmp_path):
    with pytest.raises(ValueError, match="one of float32, float16, bfloat16, got 'int8'"):
        export_run(a_run[0], tmp_path / "out", build=build, dtype="int8")
