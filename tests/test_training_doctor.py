"""What a run will cost, and what helps most: the calculation with given numbers, the measuring on small real parts."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from midway_hub.training.data.clip import Clip, SampleError
from midway_hub.training.data.views import ViewSettings
from midway_hub.training.doctor import (
    Measured,
    NothingToMeasureError,
    RunPlan,
    describe_machine,
    diagnose,
    examine,
    forecast,
    measure_batched_augmentation,
    measure_packed_reading,
    measure_readers,
    measure_reading,
    measure_step,
    summarise,
    views_of,
)
from midway_hub.training.doctor.machine import usable_cores
from midway_hub.training.methods import make_method
from midway_hub.training.timeline import Timeline

GIB = 2**30
# A GPU that takes 100 pairs in a second, and eight cores that read two a second each.
STARVED = Measured(reading=0.5, augmenting=0.1, step=0.01, cores=8)
PLAN = RunPlan(steps=3600, pairs=100, workers=4)
SMALL = ViewSettings(global_size=32, local_size=16, local_count=1, dense_size=32)


def needs(*groups):
    asked = SMALL.needs()
    kept = {name: crops for name, crops in asked.crops.items() if name in {*groups, "initial"}}
    return replace(asked, crops=kept)


class Pairs:
    """A source of noise; items in `broken` cannot be read, every visit takes `seconds`."""

    def __init__(self, items=3, *, broken=(), seconds=0.0):
        self.items, self.broken, self.seconds = items, broken, seconds

    def __len__(self):
        return self.items

    def clips(self, index, count, generator):
        if index in self.broken:
            raise SampleError(f"{index}.mov", "moov atom not found")
        time.sleep(self.seconds)
        frames = generator.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
        return [Clip.of_pair(frames[0], frames[1], f"{index}.mov", (0, 15), 0.5)] * count

    def fingerprint(self):
        return {}


def tiny_method():
    torch.manual_seed(0)
    timeline = Timeline(steps=100, steps_per_epoch=10, batch_size=2, visits_per_step=2)
    settings = {"warmup_epochs": 1, "head": {"prototypes": 16, "hidden": 8, "bottleneck": 8}}
    return make_method("midway", settings, {**TINY, "depth": 3, "levels": [1, 0], "image_size": 32}, timeline)


# -- the forecast ------------------------------------------------------------------------------------------------------


def test_starved_device_waits_for_what_its_workers_cannot_read():
    found = forecast(STARVED, PLAN)
    assert found.data == pytest.approx(100 * 0.6 / 4)
    assert found.compute == pytest.approx(1.0)
    assert found.step == pytest.approx(15.0)
    assert found.wait == pytest.approx(14 / 15)
    assert found.hours == pytest.approx(15.0)


def test_device_that_is_slower_than_its_workers_does_not_wait():
    found = forecast(Measured(reading=0.001, augmenting=0.001, step=0.1, cores=8), PLAN)
    assert found.wait == 0
    assert found.step == pytest.approx(10.0)


def test_without_workers_reading_and_training_take_turns():
    found = forecast(STARVED, RunPlan(steps=1, pairs=100, workers=0))
    assert found.step == pytest.approx(100 * 0.6 + 1.0)


def test_workers_beyond_the_cores_add_nothing():
    plans = [RunPlan(steps=1, pairs=100, workers=workers) for workers in (8, 80)]
    assert forecast(STARVED, plans[0]) == forecast(STARVED, plans[1])


def test_processes_share_pairs_and_cores():
    found = forecast(STARVED, RunPlan(steps=1, pairs=100, processes=4, workers=2))
    assert found.data == pytest.approx(25 * 0.6 / 2)
    assert found.compute == pytest.approx(0.25)


def test_step_on_the_cpu_shares_its_cores_with_the_workers():
    measured = Measured(reading=0.1, augmenting=0.0, step=0.1, cores=2)
    alone = forecast(measured, RunPlan(steps=1, pairs=10, workers=2))
    shared = forecast(measured, RunPlan(steps=1, pairs=10, workers=2, shares_cores=True))
    assert alone.step == pytest.approx(1.0)
    assert shared.step == pytest.approx(1.5)  # 1 s of reading and 2 s of training on 2 cores


def test_augmenting_on_the_device_moves_its_time_there():
    measured = Measured(reading=0.1, augmenting=0.3, step=0.01, augmenting_on_device=0.002, cores=8)
    found = forecast(measured, RunPlan(steps=1, pairs=100, workers=4, augment="device"))
    assert found.data == pytest.approx(100 * 0.1 / 4)
    assert found.compute == pytest.approx(100 * 0.012)


def test_memory_counts_the_micro_batch_and_disk_the_checkpoints():
    measured = Measured(
        reading=1, augmenting=1, step=1, memory_fixed=3 * GIB, memory_per_pair=GIB // 4, checkpoint=2 * GIB
    )
    found = forecast(measured, RunPlan(steps=1, pairs=100, processes=2, accumulate=5, checkpoints=3))
    assert found.memory == 3 * GIB + 10 * GIB // 4
    assert found.disk == 6 * GIB


# -- the advice --------------------------------------------------------------------------------------------------------


def test_packing_helps_most_where_decoding_is_what_is_slow():
    measured = Measured(reading=0.5, augmenting=0.01, step=0.01, step_bf16=0.005, reading_packed=0.01, cores=8)
    found = diagnose(measured, PLAN)
    assert [change.what for change in found.changes] == ["pack the videos", "7 workers"]
    assert found.changes[0].how == "`pack`, then data.source=pack"
    assert found.changes[0].factor == pytest.approx(12.75)  # 51 s / 4 workers, against 1 s of computing
    assert found.problems == ()


def test_precision_helps_most_where_the_device_is_what_is_slow():
    measured = Measured(reading=0.001, augmenting=0.001, step=0.1, step_bf16=0.04, reading_packed=0.0005, cores=8)
    found = diagnose(measured, PLAN)
    assert [change.what for change in found.changes] == ["bfloat16"]
    assert found.changes[0].factor == pytest.approx(2.5)


def test_augmenting_on_the_device_helps_where_views_are_what_is_slow():
    measured = Measured(reading=0.01, augmenting=0.5, augmenting_on_device=0.001, step=0.01, cores=8)
    found = diagnose(measured, PLAN)
    assert found.changes[0].how == "data.augment=device"


def test_changes_together_beat_each_alone():
    measured = Measured(
        reading=0.5, augmenting=0.5, augmenting_on_device=0.001, step=0.01, reading_packed=0.01, cores=8
    )
    found = diagnose(measured, PLAN)
    assert len(found.changes) == 3
    assert found.together.hours < min(change.forecast.hours for change in found.changes)


def test_nothing_is_advised_where_nothing_helps():
    found = diagnose(Measured(reading=0.001, augmenting=0.001, step=0.1, cores=8), PLAN)
    assert found.changes == ()
    assert "Nothing that was tried" in summarise(found, STARVED, PLAN)


def test_what_is_done_already_is_not_advised():
    measured = Measured(
        reading=0.5, augmenting=0.5, augmenting_on_device=0.1, step=1.0, step_bf16=0.1, reading_packed=0.1, cores=8
    )
    plan = RunPlan(steps=10, pairs=10, workers=7, augment="device", packed=True, precision="bf16")
    assert diagnose(measured, plan).changes == ()


def test_batch_that_does_not_fit_gets_the_accumulation_that_does():
    measured = Measured(reading=0.1, augmenting=0.1, step=0.1, memory_fixed=GIB, memory_per_pair=GIB, memory=20 * GIB)
    (problem,) = diagnose(measured, RunPlan(steps=1, pairs=100, processes=2)).problems
    assert "50 pairs at a time need 51.0 GiB, there are 20.0 GiB; 17 pairs fit" in problem
    assert "engine.accumulate=3" in problem
    assert not diagnose(measured, RunPlan(steps=1, pairs=100, processes=2, accumulate=3)).problems


def test_model_that_does_not_fit_at_all_is_said_so():
    measured = Measured(
        reading=0.1, augmenting=0.1, step=0.1, memory_fixed=9 * GIB, memory_per_pair=GIB, memory=9 * GIB
    )
    (problem,) = diagnose(measured, PLAN).problems
    assert "take a smaller model" in problem


def test_checkpoints_that_do_not_fit_are_said_so():
    measured = Measured(reading=0.1, augmenting=0.1, step=0.1, checkpoint=2 * GIB, free_disk=5 * GIB)
    (problem,) = diagnose(measured, PLAN).problems
    assert "3 checkpoints take 6.0 GiB, 5.0 GiB are free" in problem


@pytest.mark.parametrize("changes", [{"reading": float("nan")}, {"augmenting": -1.0}, {"step": 0.0}])
def test_impossible_times_are_refused(changes):
    with pytest.raises(ValueError, match=r"must be a finite time|longer than 0 s"):
        Measured(**{"reading": 1.0, "augmenting": 1.0, "step": 1.0, **changes})


def test_summary_has_the_numbers_the_problem_and_the_advice():
    measured = Measured(
        reading=0.5, augmenting=0.1, step=0.01, reading_packed=0.01, cores=8, checkpoint=GIB, free_disk=GIB
    )
    text = summarise(diagnose(measured, PLAN), measured, PLAN, readers={"pyav": 2.04, "decord": "not installed"})
    for said in ("500 ms a pair", "93%", "15.0 h", "2.04 pairs/s a core", "not installed", "Cannot work: disk"):
        assert said in text, said
    assert "Helps most: pack the videos (`pack`, then data.source=pack): 15.0 h -> 2.8 h." in text


# -- the measuring -----------------------------------------------------------------------------------------------------


def test_reading_time_is_the_source_s_own():
    per_pair, pairs = measure_reading(Pairs(seconds=0.05), pairs_per_visit=5, seconds=0.12)
    assert 0.01 <= per_pair < 0.1
    assert len(pairs) == 5


def test_items_that_cannot_be_read_are_passed_over():
    _, pairs = measure_reading(Pairs(4, broken=(0, 1, 2)), pairs_per_visit=2, seconds=0.01)
    assert pairs[0].name == "3.mov"


def test_data_of_which_nothing_can_be_read_is_an_error_with_the_reason():
    with pytest.raises(NothingToMeasureError, match=r"3 of 3 items were tried, none can be read: .*moov atom"):
        measure_reading(Pairs(3, broken=(0, 1, 2)), pairs_per_visit=2)


def test_readers_are_compared_and_those_that_cannot_read_say_why():
    def source(name):
        if name == "missing":
            raise ValueError("not installed")
        return Pairs(seconds=0.02 if name == "slow" else 0.002, broken=(0, 1, 2) if name == "wrong" else ())

    rates = measure_readers(source, ["slow", "fast", "wrong", "missing"], pairs_per_visit=1, seconds=0.05)
    assert rates["fast"] > 2 * rates["slow"]
    assert "moov atom" in rates["wrong"]
    assert rates["missing"] == "not installed"


def test_packed_reading_and_batched_views_take_some_time():
    _, pairs = measure_reading(Pairs(), pairs_per_visit=2, seconds=0.01)
    threads = torch.get_num_threads()
    assert 0 < measure_packed_reading(pairs, short_side=24, seconds=0.01) < 0.1
    assert 0 < measure_batched_augmentation(pairs, needs("dense"), torch.device("cpu"), batch=3, seconds=0.01) < 1
    assert torch.get_num_threads() == threads


def test_views_of_a_batch_come_from_few_pairs():
    _, pairs = measure_reading(Pairs(), pairs_per_visit=2, seconds=0.01)
    made = views_of(pairs, needs("globals", "dense"), batch=5)
    assert {group: tuple(views.shape) for group, views in made.items()} == {
        "globals": (5, 4, 3, 32, 32),
        "dense": (5, 2, 3, 32, 32),
    }


def test_examination_measures_every_part_of_a_run(tmp_path):
    plan = RunPlan(steps=10, pairs=2, workers=1, shares_cores=True)
    said = []
    found = examine(
        Pairs(),
        tiny_method,
        plan,
        needs=SMALL.needs(),
        pairs_per_visit=2,
        device=torch.device("cpu"),
        run_dir=tmp_path / "not" / "there",
        source_with_reader=lambda name: Pairs(),
        readers=["pyav"],
        can_pack=True,
        seconds=0.01,
        progress=said.append,
    )
    measured = found.measured
    assert min(measured.reading, measured.augmenting, measured.step, measured.reading_packed) > 0
    assert measured.step_bf16 is None  # not asked for, and no faster on a CPU
    assert found.batch == 2
    assert found.readers["pyav"] > 0
    assert said == ["reading", "video readers", "views", "training step, fp32"]
    network = tiny_method().network
    held = 4 * sum(value.numel() for value in network.state_dict().values())
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert 0.9 < measured.checkpoint / (held + 8 * trained) < 1.1  # weights, and AdamW's two means
    assert summarise(diagnose(measured, plan), measured, plan, readers=found.readers)


def test_batch_is_halved_until_it_fits():
    fits = 3

    def views(count):
        if count > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"globals": zeros(count, 4, 32), "locals": zeros(count, 2, 16), "dense": zeros(count, 2, 32)}

    def zeros(count, each, side):
        return torch.zeros(count, each, 3, side, side, dtype=torch.uint8)

    cost = measure_step(tiny_method(), views, torch.device("cpu"), batch=10, steps=1)
    assert cost.batch == 2  # 10, 5, 2
    fits = 0
    with pytest.raises(RuntimeError, match="not even one frame pair fits"):
        measure_step(tiny_method(), views, torch.device("cpu"), batch=4, steps=1)


def test_machine_tells_what_it_has(tmp_path):
    machine = describe_machine(torch.device("cpu"), tmp_path / "not" / "there")
    assert machine.cores == usable_cores() >= 1
    assert machine.free_disk > 0
    assert machine.memory is None or machine.memory > 2**28
