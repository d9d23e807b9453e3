"""What one optimizer step does, and what it never does."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from engine_job import Job, Net, Started, TinyTask, no_process_stays, run  # noqa: F401
from torch.utils._python_dispatch import TorchDispatchMode

from midway_hub.training.engine import guard
from midway_hub.training.engine.averages import Averages
from midway_hub.training.engine.collapse import CollapseWatch
from midway_hub.training.engine.feed import Feed
from midway_hub.training.engine.interrupt import Interrupt
from midway_hub.training.engine.processes import make_fabric
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.engine.random_state import RandomState, seed_all
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.engine.step import OptimizerStep


@pytest.fixture
def job(tmp_path):
    return Job(str(tmp_path / "run"), steps=6, dropout=0.0, engine={"log_every": 1})


def elsewhere(job: Job, **changes) -> Job:
    return replace(job, run_directory=f"{job.run_directory}_too", **changes)


def assert_same_training(one: Job, other: Job) -> None:
    for name, value in one.weights().items():
        torch.testing.assert_close(other.weights()[name], value, rtol=1e-4, atol=1e-6)
    for a, b in zip(one.metrics(), other.metrics(), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)


def test_four_accumulated_micro_batches_equal_the_big_batch(job):
    run(job)
    four = elsewhere(job, engine={**job.engine, "accumulate": 4})
    _, task = run(four)
    assert_same_training(job, four)
    assert task.calls == ["schedule", "after_update"] * job.steps


@pytest.mark.parametrize("alike", [True, False])
def test_processes_draw_alike_where_that_is_asked_for(job, alike):
    """What dropout draws comes from torch's generator, whose state every process leaves in the checkpoint."""
    two = replace(job, dropout=0.2, alike=alike)
    assert Started(two, 2).wait() == [0, 0]
    states = [safetensors.torch.load_file(two.last_checkpoint / f"rank_{rank}.safetensors") for rank in (0, 1)]
    for name in ("random.torch", "random.numpy", "random.python"):
        assert torch.equal(states[0][name], states[1][name]) is alike, name


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_equal_one(job, accumulate):
    run(job)
    two = elsewhere(job, engine={**job.engine, "accumulate": accumulate})
    assert Started(two, 2).wait() == [0, 0]
    assert_same_training(job, two)


def test_one_step_is_adamw_on_the_mean_of_the_summed_losses(job):
    job = replace(job, steps=1)
    task = TinyTask(job)
    _, trained = run(job)
    net = task.network.double()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1000)).double()
    target = net.teacher(x)
    loss = (net.student(x) - target).square().mean() + (net.student(x) - x[:, :4].sin()).square().mean()
    loss.backward()
    for name, parameter in net.student.named_parameters():
        gradient = parameter.grad * min(1.0, 1.0 / (parameter.grad.norm() + 1e-6))
        stepped = parameter.detach() * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(trained.network.student.get_parameter(name).double(), stepped, rtol=1e-4, atol=1e-6)
    assert job.metrics()[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


class _Reads(TorchDispatchMode):
    """Counts the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def watch_steps(monkeypatch, context) -> None:
    """Take every step but the first, which sets things up, inside a context."""
    take = OptimizerStep.take

    def watched(self, step, *args, **kwargs):
        with context() if step else contextlib.nullcontext():
            return take(self, step, *args, **kwargs)

    monkeypatch.setattr(OptimizerStep, "take", watched)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_step_waits_for_the_device_once(job, monkeypatch, log_every):
    reads, mode = [], _Reads()
    monkeypatch.setattr(guard, "read_from_device", lambda vector: reads.append(vector.numel()) or vector.tolist())
    # AdamW reads its step count, which lies on the CPU, with item(); SGD does not.
    monkeypatch.setattr(
        TinyTask,
        "make_optimizer",
        lambda self: torch.optim.SGD([{"params": list(self.network.student.parameters())}], lr=0.01, momentum=0.9),
    )
    watch_steps(monkeypatch, lambda: mode)
    run(replace(job, engine={"log_every": log_every, "checkpoint_every_minutes": None}))
    assert len(reads) == job.steps
    assert mode.found == []


@contextlib.contextmanager
def _sync_is_an_error(mode: str = "error"):
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_waits_for_the_gpu_once(job, monkeypatch, precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    read = guard.read_from_device

    def allowed(vector):
        with _sync_is_an_error("default"):
            return read(vector)

    monkeypatch.setattr(guard, "read_from_device", allowed)
    watch_steps(monkeypatch, _sync_is_an_error)
    outcome, _ = run(replace(job, engine={"accelerator": "cuda", "devices": 1, "precision": precision}))
    assert outcome.state == "finished"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_is_not_finite_is_not_taken_and_its_batch_is_kept(job, precision):
    job = replace(job, steps=1, nan_steps=(0,), engine={"precision": precision, "accumulate": 2})
    start = TinyTask(job).network.state_dict()
    _, task = run(job)
    assert task.calls == ["schedule", "after_rejection"]
    for name, value in job.weights().items():
        assert torch.equal(value, start[name]), name
    (incident,) = job.record()["incidents"]
    assert (incident["kind"], incident["step"]) == ("not finite", 1)
    assert {"fit", "loss", "grad_norm"} <= set(incident["ranks"][0]["not_finite"])
    folder = job.folder / "incidents/step_1"
    batch = safetensors.torch.load_file(folder / "rank_0_micro_1.safetensors")
    assert batch["x"].shape == (4, 6)
    assert batch["y"].isnan().all()
    RandomState.from_tensors(safetensors.torch.load_file(folder / "rank_0_random.safetensors")).restore()


def test_what_is_not_finite_in_one_process_stops_the_step_in_both(job):
    job = replace(job, steps=3, nan_steps=(1,), nan_rank=1)
    assert Started(job, 2).wait() == [0, 0]
    (incident,) = job.record()["incidents"]
    assert "loss" not in incident["ranks"][0]["not_finite"]
    assert "loss" in incident["ranks"][1]["not_finite"]
    assert job.names("incidents/step_2") == {"rank_1_random.safetensors", "rank_1_micro_0.safetensors"}
    assert all(torch.isfinite(value).all() for value in job.weights().values())
    assert [line["step"] for line in job.metrics()] == [1, 2, 3]
    assert all(math.isfinite(value) for line in job.metrics() for value in line.values())


def test_a_step_that_is_not_taken_leaves_the_logged_means_alone(job):
    run(replace(job, engine={"log_every": 6}))
    bad = elsewhere(job, nan_steps=(2, 4), engine={"log_every": 6})
    run(bad)
    (line,) = bad.metrics()
    assert 0 < line["loss"] < 2
    assert line["grad_norm"] > 0


def test_too_many_steps_in_a_row_end_the_run_with_a_report(job):
    job = replace(job, nan_steps=(1, 2, 3), engine={"max_bad_steps": 3, "saved_incidents": 2})
    with pytest.raises(RuntimeError, match=r"3 steps in a row and 3 in all.*process 0: fit, grad_norm, loss"):
        run(job)
    assert job.record()["state"] == "failed"
    assert job.names("incidents") == {"step_2", "step_3"}


def test_too_many_steps_in_all_end_the_run_too(job):
    with pytest.raises(RuntimeError, match="1 steps in a row and 2 in all"):
        run(replace(job, nan_steps=(1, 4), engine={"max_bad_total": 2}))


def test_a_loss_scale_that_is_too_large_is_no_incident_and_finds_its_size(job, monkeypatch):
    monkeypatch.setattr("lightning_fabric.plugins.precision.amp.torch.amp.GradScaler", _TooLarge)
    job = replace(job, steps=12, engine={"precision": "fp16", "log_every": 1})
    _, task = run(job)
    assert task.calls.count("after_rejection") >= 3
    assert task.calls.count("after_update") >= 1
    assert job.record()["incidents"] == []
    engine = json.loads((job.folder / "checkpoints/step_12/engine.json").read_text())
    assert engine["scaler"]["scale"] < 2.0**130


class _TooLarge(torch.amp.GradScaler):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs, init_scale=2.0**126, backoff_factor=2.0**-15)


def test_overflows_that_do_not_end_become_incidents():
    watch = guard.Guard(EngineSettings(max_bad_steps=2), scaled=True)
    overflow = guard.Agreement(loss_finite=True, gradient_finite=False, stop=False, save=False, means=None)
    assert [watch.is_incident(overflow) for _ in range(22)] == [False] * 20 + [True] * 2
    with pytest.raises(RuntimeError, match="2 steps in a row"):
        watch.stop_if_hopeless("")


def test_a_non_finite_loss_is_an_incident_with_a_loss_scale_too():
    watch = guard.Guard(EngineSettings(), scaled=True)
    assert watch.is_incident(
        guard.Agreement(loss_finite=False, gradient_finite=False, stop=False, save=False, means=None)
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_leaves_inputs_and_weights_in_fp32(job, monkeypatch, precision):
    seen = {}

    def forward(self, batch):
        hidden = self.student[0](batch["x"])
        seen["input"], seen["hidden"], seen["weight"] = batch["x"].dtype, hidden.dtype, self.student[0].weight.dtype
        self.gathered.append(torch.zeros(4))
        return StepOutput({"fit": (self.student(batch["x"]) - batch["y"]).square().mean()})

    monkeypatch.setattr(Net, "forward", forward)
    run(replace(job, engine={"precision": precision}))
    sixteen = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == {"input": torch.float32, "hidden": sixteen, "weight": torch.float32}


@pytest.mark.slow
def test_a_compiled_step_trains_like_an_eager_one(job):
    run(job)
    compiled = elsewhere(job, engine={**job.engine, "compile": True})
    run(compiled)
    assert_same_training(job, compiled)


class _Draws:
    name, every = "draws", 2

    def __call__(self, trainable):
        assert not trainable.network.training
        torch.rand(3), random.random(), np.random.rand()
        trainable.network.student[0].weight.sum().backward()
        return {"value": 0.5}


def test_probes_are_logged_and_leave_the_run_as_it_was(job):
    job = replace(job, dropout=0.5)
    run(job)
    probed = elsewhere(job)
    _, task = run(probed, probes=[_Draws()])
    assert all(torch.allclose(value, probed.weights()[name], atol=1e-6) for name, value in job.weights().items())
    lines = [line for line in probed.metrics() if "draws/value" in line]
    assert [(line["step"], line["draws/value"]) for line in lines] == [(2, 0.5), (4, 0.5), (6, 0.5)]
    assert task.network.student.training
    assert not task.network.teacher.training


def test_a_probe_that_fails_is_noted_and_training_goes_on(job):
    def broken(trainable):
        raise ValueError("no labels")

    broken.name, broken.every = "knn", 4
    assert run(job, probes=[broken])[0].state == "finished"
    (incident,) = job.record()["incidents"]
    assert incident["reason"] == "knn: ValueError: no labels"


def test_a_line_of_metrics_has_losses_rates_and_speed(job):
    run(replace(job, engine={"log_every": 4}))
    first, last = job.metrics()
    assert (first["step"], last["step"]) == (4, 6)
    assert first["loss"] == pytest.approx(first["match"] + first["fit"])
    assert last["lr"] == pytest.approx(0.01 / 6)
    assert (first["epoch"], last["epoch"]) == (0, 1)
    assert 0 <= first["data_wait"] <= 1
    assert first["pairs_per_second"] == pytest.approx(8 / first["seconds_per_step"])


def test_tensorboard_gets_the_same_numbers(job):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(replace(job, engine={"log_every": 2, "tensorboard": True}))
    events = event_accumulator.EventAccumulator(str(job.folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert events.Scalars("loss")[-1].value == pytest.approx(job.metrics()[-1]["loss"])


def test_wandb_asked_for_and_not_installed_is_an_error_before_anything_is_written(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"engine.wandb is set, but .* pip install 'midway-hub\[wandb\]'"):
        run(replace(job, engine={"wandb": "project"}))
    assert not job.folder.exists()


def test_wandb_goes_on_under_the_same_id(job, monkeypatch):
    class Wandb:
        calls, logged = [], []

        def init(self, **kwargs):
            self.calls.append(kwargs)
            return self

        def log(self, values, step):
            self.logged.append((step, values["loss"]))

        def finish(self): ...

    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run(replace(job, engine={"wandb": "project", "log_every": 3}))
    assert fake.calls[0]["id"] == job.record()["id"]
    assert [step for step, _ in fake.logged] == [3, 6]


def test_names_that_the_engine_uses_are_refused_as_losses(job, monkeypatch):
    monkeypatch.setattr(Net, "forward", lambda self, batch: StepOutput({"loss": self.student(batch["x"]).mean()}))
    with pytest.raises(ValueError, match=r"other than \['grad_norm', 'loss'\]; the network returned \['loss'\]"):
        run(job)


def test_data_that_end_early_are_an_error_that_says_so():
    class Short:
        def iterate(self, first, last):
            yield {}

    feed = Feed(Short(), 3, 9)
    feed.next()
    with pytest.raises(RuntimeError, match=r"ended before micro-batch 4; 9 were asked for"):
        feed.next()


def test_reading_data_draws_nothing_from_the_run():
    class Drawing:
        def iterate(self, first, last):
            while True:
                yield torch.rand(1)

    before = torch.get_rng_state()
    Feed(Drawing(), 0, 2).next()
    assert torch.equal(torch.get_rng_state(), before)


def test_random_states_come_back_as_they_were():
    draw = lambda: (random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist())  # noqa: E731
    seed_all(5, 0)
    draw()
    stored = safetensors.torch.save(RandomState.capture().tensors())
    first = draw()
    RandomState.from_tensors(safetensors.torch.load(stored)).restore()
    assert draw() == first


def test_processes_draw_differently():
    seed_all(5, 0)
    first = torch.rand(1)
    seed_all(5, 1)
    assert torch.rand(1) != first


def test_means_are_over_the_steps_that_had_the_value():
    averages = Averages(torch.device("cpu"))
    one, zero = torch.tensor(1.0), torch.tensor(0.0)
    averages.add({"a": torch.tensor(2.0), "b": torch.tensor(8.0)}, one)
    averages.add({"a": torch.tensor(4.0)}, one)
    averages.add({"a": torch.tensor(float("nan"))}, zero)
    kept = averages.state()
    assert averages.unpack(averages.packed(across_processes=False).tolist()) == {"a": 3.0, "b": 8.0}
    assert averages.unpack(averages.packed(across_processes=False).tolist()) == {}
    averages.load(kept)
    assert averages.unpack(averages.packed(across_processes=False).tolist()) == {"a": 3.0, "b": 8.0}


def test_a_loss_at_its_value_of_collapse_is_warned_of_once_after_a_while():
    watch = CollapseWatch({"dino": (math.log(1024), "Lower the teacher's temperature.")}, patience=20)
    said = [watch.observe(step, {"dino": 6.93}) for step in range(0, 60, 10)]
    assert [bool(warning) for warning in said] == [False, False, True, False, False, False]
    assert "at 6.931 the network has collapsed" in said[2]["dino"]
    assert "Lower the teacher's temperature." in said[2]["dino"]


def test_a_loss_that_leaves_its_value_of_collapse_is_not_warned_of():
    watch = CollapseWatch({"dino": (5.0, "")}, patience=20)
    assert not any(watch.observe(step, {"dino": 5.0 if step % 30 else 4.0}) for step in range(0, 90, 10))


def test_a_collapse_is_an_incident(job, monkeypatch):
    monkeypatch.setattr(
        Net, "forward", lambda self, batch: StepOutput({"dino": self.student(batch["x"]).mean() * 0 + 5})
    )
    monkeypatch.setattr(TinyTask, "after_update", lambda self, step: None)
    monkeypatch.setattr(TinyTask, "collapse_values", lambda self: {"dino": (5.0, "Warm up.")})
    run(replace(job, engine={"log_every": 1, "collapse_patience_steps": 3}))
    (incident,) = job.record()["incidents"]
    assert (incident["kind"], incident["loss"], incident["step"]) == ("collapse", "dino", 4)


def test_signals_are_noted_and_handlers_come_back():
    before = signal.getsignal(signal.SIGUSR1)
    with Interrupt() as asked:
        assert asked.requested is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.requested == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_loader_workers_can_ignore_signals():
    code = """
import os, signal
from midway_hub.training.data.worker import start_worker
start_worker(0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    os.kill(os.getpid(), number)
print("alive")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout == "alive\n"


def test_the_number_of_processes_comes_from_the_launcher(monkeypatch):
    from midway_hub.training.engine.processes import _size

    settings = EngineSettings(accelerator="cpu")
    assert _size(settings, "cpu") == (1, 1)
    for name, value in {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert _size(settings, "cpu") == (4, 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "9"}.items():
        monkeypatch.setenv(name, value)
    assert _size(settings, "cpu") == (3, 3)


def test_deterministic_switches_torch_to_deterministic_algorithms(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        make_fabric(EngineSettings(accelerator="cpu", deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("field", "value"), [("accumulate", 0), ("precision", "fp8"), ("keep_last", 0), ("compile", "fast")]
)
def test_settings_out_of_range_are_errors(field, value):
    with pytest.raises(ValueError, match=field):
        EngineSettings(**{field: value})
