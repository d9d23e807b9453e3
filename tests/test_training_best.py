"""The best weights of a run: which they are, that they go on with it, and that they are what is exported."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import make_tiny_net
from engine_job import Job, run
from torch import nn

from midway_hub import MidwayNetwork
from midway_hub.training.configuration import ConfigError
from midway_hub.training.engine.best import Best, Keep
from midway_hub.training.engine.checkpoint import BEST
from midway_hub.training.kinds import kind
from midway_hub.training.tasks.config import load_task_config
from midway_hub.training.tasks.running import Evaluating, best_by, finetune

SCORES = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.0, 10: math.nan, 12: 2.5}


class Scored:
    """A probe whose numbers are written down beforehand, by step."""

    name, every = "made", 2

    def __init__(self, scores=SCORES, fail_at=()):
        self.scores, self.fail_at, self.seen, self.step = scores, fail_at, {}, 0

    def __call__(self, trainable):
        self.step += self.every
        self.seen[self.step] = {k: v.detach().clone() for k, v in trainable.network.state_dict().items()}
        if self.step in self.fail_at:
            raise RuntimeError("it did not work")
        return {"score": self.scores[self.step]}


def kept(job, step=None):
    folder = job.folder / "checkpoints" / f"step_{step or job.steps}"
    return json.loads((folder / "engine.json").read_text())["best"], folder / BEST


@pytest.fixture
def job(tmp_path):
    return Job(str(tmp_path / "run"), engine={"log_every": 1, "checkpoint_every_steps": 3, "keep_last": 9})


@pytest.mark.parametrize(("lowest", "step", "value"), [(True, 4, 1.0), (False, 2, 3.0)])
def test_the_best_is_kept_and_of_equals_the_first(job, lowest, step, value):
    probe = Scored()
    run(job, probes=[probe], keep=Keep("made/score", lowest))
    facts, file = kept(job)
    assert (facts["step"], facts["value"]) == (step, value)
    stored = safetensors.torch.load_file(file)
    assert stored.keys() == probe.seen[step].keys()
    assert all(torch.equal(stored[name], value) for name, value in probe.seen[step].items())
    assert not all(torch.equal(stored[name], value) for name, value in job.weights().items())


def test_every_checkpoint_holds_the_best_up_to_its_step(job):
    run(job, probes=[Scored()], keep=Keep("made/score", True))
    assert [kept(job, step)[0]["step"] for step in (3, 6, 9, 12)] == [2, 4, 4, 4]


def test_a_run_that_keeps_its_best_learns_what_one_without_learns(job):
    run(job, probes=[Scored()], keep=Keep("made/score", True))
    plain = replace(job, run_directory=f"{job.run_directory}_plain")
    run(plain)
    assert all(torch.equal(value, plain.weights()[name]) for name, value in job.weights().items())
    assert kept(plain)[0] is None
    assert not kept(plain)[1].exists()


class Stopped(BaseException):
    """Ends a run as a kill would, between two checkpoints."""


class Interrupted(Scored):
    def __call__(self, trainable):
        if self.step + self.every == 10:
            raise Stopped
        return super().__call__(trainable)


@pytest.mark.parametrize("lowest", [True, False])
def test_a_run_that_was_stopped_ends_with_the_best_of_one_that_was_not(job, lowest):
    whole = replace(job, run_directory=f"{job.run_directory}_whole")
    keep = Keep("made/score", lowest)
    run(whole, probes=[Scored()], keep=keep)
    with pytest.raises(Stopped):
        run(job, probes=[Interrupted()], keep=keep)
    again = Scored()
    again.step = 8  # it goes on from the checkpoint at 9
    run(job, probes=[again], keep=keep)
    assert kept(job)[0] == kept(whole)[0]
    assert kept(job)[1].read_bytes() == kept(whole)[1].read_bytes()


def test_a_measurement_that_fails_changes_nothing(job):
    run(job, probes=[Scored(fail_at=(4,))], keep=Keep("made/score", True))
    assert kept(job)[0]["step"] == 8


def test_weights_kept_by_another_number_or_data_set_are_let_go(caplog):
    network = nn.Linear(2, 2)
    first = Best(Keep("a", True, {"dataset": "x"}))
    first.observe(3, {"a": 1.0}, network)
    for keep in (Keep("b", True, {"dataset": "x"}), Keep("a", False, {"dataset": "x"}), Keep("a", True)):
        other = Best(keep)
        other.load(first.facts(), first.network)
        assert other.facts() is None
        assert "they are let go" in caplog.text
    same = Best(Keep("a", True, {"dataset": "x"}))
    same.load(json.loads(json.dumps(first.facts())), first.network)
    assert same.facts() == first.facts()


# -- as a setting of finetuning


def test_a_number_that_is_not_measured_or_never_is_refused():
    for override, message in (
        (["evaluation.keep_best=flow/epa", "evaluation.every_steps=5"], "is not measured; there are: flow/epe, "),
        (["evaluation.keep_best=flow/epe", "evaluation.every_steps=0"], "give every_steps"),
        (["evaluation.dataset=[]"], "names no data set"),
        (["evaluation.overlap=1"], "less than 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_task_config("flow", "flow_synthetic_small", override)
    with pytest.raises(ConfigError, match="segmentation/miou"):
        load_task_config("segmentation", "segmentation_synthetic_small", ["evaluation.keep_best=flow/epe"])


def test_flow_keeps_the_lowest_and_segmentation_the_highest():
    flow = load_task_config("flow", "paper/flow_best_vits").evaluation
    keep = best_by(flow)
    assert (keep.name, keep.lowest) == ("evaluation/flow/epe", True)
    assert keep.measured_on == {
        "dataset": ["sintel/subval/clean", "sintel/subval/final"],
        "limit": 98,
        "overlap": 0.7,
    }
    values = ["evaluation.keep_best=segmentation/miou", "evaluation.every_steps=5"]
    classes = load_task_config("segmentation", "segmentation_synthetic_small", values).evaluation
    assert best_by(classes).lowest is False


class Constant:
    def __init__(self, value):
        self.value = value

    def __call__(self, model):
        return {"flow/epe": self.value, "flow/bad_1": 10 * self.value}


class Empty:
    class network:  # noqa: N801
        model = None


def test_several_data_sets_give_their_mean_and_each_its_own(monkeypatch):
    config = load_task_config("flow", "flow_synthetic_small", ["evaluation.dataset=[a/clean, a/final]"])
    probe = Evaluating(config)
    monkeypatch.setattr(probe, "_open", lambda name: Constant({"a/clean": 1.0, "a/final": 4.0}[name]))
    assert probe(Empty) == {
        "flow/epe": 2.5,
        "flow/bad_1": 25.0,
        "a/clean/flow/epe": 1.0,
        "a/clean/flow/bad_1": 10.0,
        "a/final/flow/epe": 4.0,
        "a/final/flow/bad_1": 40.0,
    }


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best")
    make_tiny_net().save_pretrained(folder / "net")
    options = [
        *(f"start.weights={folder / 'net'}", "steps=4", "data.world.size=[32,48]", "data.world.textures.tiles=4"),
        *("data.batch_size=4", "data.workers=0", "engine.accelerator=cpu", "engine.devices=1", "engine.log_every=1"),
        *("evaluation.limit=2", "evaluation.every_steps=1", "evaluation.keep_best=flow/epe", "evaluation.overlap=0.5"),
        "task.head={layer_dims: [8, 8, 8, 8], feature_dim: 8, last_dim: 8}",
        "task.optimisation={lr: 5.0e-2, warmup_epochs: null, warmup_steps: 0}",
    ]
    config = load_task_config("flow", "flow_synthetic_small", options)
    finetune(config, folder / "run")
    return folder / "run"


def test_a_run_exports_its_best_weights_and_says_so_on_the_card(flow_run):
    rows = [json.loads(line) for line in (flow_run / "metrics.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["evaluation/flow/epe"] for row in rows if "evaluation/flow/epe" in row}
    assert set(measured) == {1, 2, 3, 4}
    best = min(measured, key=measured.get)
    facts = json.loads((flow_run / "checkpoints" / "step_4" / "engine.json").read_text())["best"]
    assert (facts["step"], facts["value"]) == (best, measured[best])
    stored = safetensors.torch.load_file(flow_run / "checkpoints" / "step_4" / BEST)
    exported = MidwayNetwork.from_pretrained(flow_run / "export").state_dict()
    assert all(torch.equal(stored[f"model.{name}"], value) for name, value in exported.items())
    card = (flow_run / "export" / "README.md").read_text()
    assert f"The best of the run, not its last.** These are the weights after {best} of 4 steps" in card


def test_export_takes_the_last_or_the_best_as_asked(flow_run, tmp_path):
    from midway_hub.training.export import export_run

    def build(values):
        return kind("flow").rebuild(values, flow_run)

    last = safetensors.torch.load_file(flow_run / "checkpoints" / "step_4" / "network.safetensors")
    for best, weights in (
        (False, last),
        (True, safetensors.torch.load_file(Path(flow_run, "checkpoints/step_4", BEST))),
    ):
        out = export_run(flow_run, tmp_path / str(best), build=build, best=best)
        found = MidwayNetwork.from_pretrained(out).state_dict()
        assert all(torch.equal(weights[f"model.{name}"], value) for name, value in found.items())
    with pytest.raises(ValueError, match="leave out one of them"):
        export_run(flow_run, tmp_path / "both", build=build, best=True, step=4)
