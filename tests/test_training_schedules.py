import numpy as np
import pytest
import torch
from torch import nn

from midway_hub.training.compat import Compat
from midway_hub.training.config import load_config
from midway_hub.training.ema import MovingAverage
from midway_hub.training.methods import make_method
from midway_hub.training.plan import make_plan
from midway_hub.training.schedules import cosine, warmup_cosine
from midway_hub.training.timeline import Timeline

TINY = {"embed_dim": 8, "depth": 2, "num_heads": 1, "image_size": 16, "levels": [0], "motion_dim": 8}
HEADS = {"midway_heads": 1, "backward_heads": 1, "predictor_heads": 1}
HEAD = {"hidden": 4, "bottleneck": 4, "prototypes": 4}


def midway(timeline, *, compat=None, lr_batch_size=None, **settings):
    return make_method(
        "midway", {"head": HEAD, **settings}, {**TINY, **HEADS}, timeline, compat, lr_batch_size=lr_batch_size
    )


# -- curves --------------------------------------------------------------------------------------------------------


def test_a_cosine_passes_its_ends_its_middle_and_its_quarter():
    values = [cosine(step, start=2.0, end=1.0, steps=100) for step in (0, 25, 50, 100, 150)]
    assert values == pytest.approx([2.0, 1 + (1 + 2**-0.5) / 2, 1.5, 1.0, 1.0])


def test_the_warm_up_is_linear_from_0_and_the_cosine_starts_where_it_ends():
    values = [warmup_cosine(step, peak=4.0, end=1.0, warmup=10, steps=110) for step in (0, 5, 10, 60, 110)]
    assert values == pytest.approx([0.0, 2.0, 4.0, 2.5, 1.0])


def test_a_run_without_warm_up_starts_at_the_peak_and_one_of_warm_up_alone_never_leaves_it():
    assert warmup_cosine(0, peak=4.0, end=1.0, warmup=0, steps=10) == 4.0
    assert warmup_cosine(9, peak=4.0, end=1.0, warmup=10, steps=10) == pytest.approx(3.6)


# -- a method's numbers --------------------------------------------------------------------------------------------


def test_the_papers_numbers_at_the_start_the_end_of_warm_up_and_the_end():
    method = midway(Timeline(steps=300 * 350, steps_per_epoch=350, batch_size=200, visits_per_step=40))
    start, warm, end = method.values(0), method.values(3500), method.values(300 * 350)
    assert start == pytest.approx({"learning_rate": 0.0, "weight_decay": 0.04, "momentum": 0.996})
    assert warm["learning_rate"] == pytest.approx(5e-4 * 200 / 256)
    assert end == pytest.approx({"learning_rate": 1e-6, "weight_decay": 0.4, "momentum": 1.0})


def test_the_learning_rate_can_be_scaled_by_another_batch_than_the_runs():
    method = midway(Timeline(100, 10, 80, 80), lr_batch_size=400)
    assert method.peak_learning_rate == pytest.approx(5e-4 * 400 / 256)


def test_momentum_over_samples_hardly_leaves_its_start():
    timeline = Timeline(steps=1000, steps_per_epoch=10, batch_size=200, visits_per_step=40)
    method = midway(timeline, compat=Compat(teacher_momentum_over_samples=True))
    assert method.values(1000)["momentum"] == pytest.approx(cosine(1000, start=0.996, end=1.0, steps=1000 * 200))
    assert method.values(1000)["momentum"] < 0.9961
    assert method.values(1000)["weight_decay"] == pytest.approx(0.4)


# -- the released recipes, from tables as their loops read them -------------------------------------------------------


def recipe(name, *, items, world_size, **settings):
    """A recipe's configuration, plan, and method on a tiny network."""
    config = load_config(name, ["data.path=x"])
    plan = make_plan(config, items=items, world_size=world_size)
    numbers = config.method.model_dump() | {"head": HEAD, **settings}
    method = make_method(
        config.method.name, numbers, {**TINY, **HEADS}, plan.timeline, config.compat, lr_batch_size=plan.lr_batch_size
    )
    return config, plan, method


def released_tables(*, epochs, steps_of_a_pass, samples_of_a_pass, peak):
    """Learning rate and weight decay by entry, an entry for every step of `epochs` passes; momentum for every sample.

    Written from the description of the released recipe in float64, with nothing of the package.
    """
    entries, warmup = epochs * steps_of_a_pass, 10 * steps_of_a_pass
    down = np.arange(entries - warmup) / (entries - warmup)
    rate = np.concatenate([np.linspace(0, peak, warmup), 1e-6 + (peak - 1e-6) * (1 + np.cos(np.pi * down)) / 2])
    decay = 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * np.arange(entries) / entries)) / 2
    samples = epochs * samples_of_a_pass
    momentum = 1 + (0.996 - 1) * (1 + np.cos(np.pi * np.arange(entries) / samples)) / 2
    return rate, decay, momentum


@pytest.mark.parametrize(
    ("name", "items", "gpus", "repeats", "passes", "epochs", "pairs"),
    [
        ("paper/bdd_vits", 70_000, 2, 5, 60, 300, 200),
        ("paper/dino_bdd_vits", 70_000, 2, 5, 60, 300, 200),
        ("paper/bdd_vitb", 70_400, 8, 5, 60, 300, 800),
        ("paper/wt_venice_vits", 80_000, 4, 1, 100, 100, 400),
    ],
)
def test_every_step_of_a_released_recipe_reads_its_tables_where_its_loop_does(
    name, items, gpus, repeats, passes, epochs, pairs
):
    _, plan, method = recipe(name, items=items, world_size=gpus)
    steps_of_a_pass = items // (20 * gpus)
    rate, decay, momentum = released_tables(
        epochs=epochs, steps_of_a_pass=steps_of_a_pass, samples_of_a_pass=items, peak=5e-4 * pairs / 256
    )
    assert plan.timeline.steps == passes * steps_of_a_pass
    step, found, wanted, counters = 0, [], [], []
    for number in range(passes):
        for index in range(steps_of_a_pass):
            entry = number * steps_of_a_pass * repeats + index * repeats
            wanted.append((rate[entry], decay[entry], momentum[entry]))
            values = method.values(step)
            found.append((values["learning_rate"], values["weight_decay"], values["momentum"]))
            counters.append(plan.timeline.epoch(step) == number * repeats)
            step += 1
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=0)
    assert all(counters)
    assert found[-1][2] < 0.9961


@pytest.mark.parametrize(("step", "percent"), [(0, 0), (875, 25), (1749, 50), (1750, 50), (3499, 100), (3500, 100)])
def test_the_rate_of_bdd100k_rises_evenly_over_its_two_passes_of_warm_up(step, percent):
    _, plan, method = recipe("paper/bdd_vits", items=70_000, world_size=2)
    assert plan.timeline.steps_per_epoch * plan.timeline.epoch_stride == 1750
    share = method.values(step)["learning_rate"] / method.peak_learning_rate
    assert 100 * share == pytest.approx(percent, abs=0.1)


def test_the_epoch_counter_s_stride_leaves_schedules_as_they_are():
    plain, strides = (midway(Timeline(600, 20, 10, 2, epoch_stride=stride), warmup_epochs=3) for stride in (1, 5))
    for step in range(601):
        assert plain.values(step) == strides.values(step)


def last_layer_moves(method, step):
    layer = method.network.student_head.last_layer
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    method.before_update(step)
    return any(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("name", "items", "gpus", "one_pass"),
    [("paper/bdd_vits", 70_000, 2, 1750), ("paper/wt_venice_vits", 80_000, 4, 1000)],
)
def test_the_last_layer_is_frozen_until_the_epoch_counter_moves_first(name, items, gpus, one_pass):
    _, _, method = recipe(name, items=items, world_size=gpus)
    moves = [last_layer_moves(method, step) for step in (0, one_pass // 5, one_pass - 1, one_pass, 5 * one_pass)]
    assert moves == [False, False, False, True, True]


def test_a_warm_up_that_ends_at_the_peak_has_both_ends_in_it():
    for warmup, stride in ((1, 1), (2, 1), (10, 1), (4, 5), (1, 5)):
        method = midway(
            Timeline(100, warmup, 256, 256, epoch_stride=stride),
            compat=Compat(warmup_ends_at_peak=True),
            warmup_epochs=1,
        )
        entries = np.linspace(0, 5e-4, warmup * stride)
        assert [method.values(step)["learning_rate"] for step in range(warmup)] == pytest.approx(entries[::stride])
        assert method.values(warmup)["learning_rate"] == 5e-4


def test_a_warm_up_reaches_the_peak_a_step_later_where_no_oddity_is_wanted():
    method = midway(Timeline(100, 10, 256, 256), warmup_epochs=1)
    assert [method.values(step)["learning_rate"] / 5e-4 for step in (0, 5, 9, 10)] == pytest.approx([0, 0.5, 0.9, 1])


def weight_decays(method, step):
    optimizer = method.make_optimizer()
    method.schedule(optimizer, step)
    return {group["name"]: group["weight_decay"] for group in optimizer.param_groups}


def test_weight_decay_reaches_all_matrices_and_no_vector():
    assert weight_decays(midway(Timeline(100, 10, 4, 4)), 50) == pytest.approx(
        {"student_matrices": 0.22, "dynamics_matrices": 0.22, "student_vectors": 0, "dynamics_vectors": 0}
    )


def test_weight_decay_of_the_first_group_only_leaves_the_dynamics_at_adamws_default():
    found = weight_decays(midway(Timeline(100, 10, 4, 4), compat=Compat(weight_decay_first_group_only=True)), 50)
    assert found == pytest.approx(
        {"student_matrices": 0.22, "dynamics_matrices": 0.01, "student_vectors": 0, "dynamics_vectors": 0}
    )
    assert found["dynamics_matrices"] == torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"]


def test_every_group_gets_the_learning_rate_of_the_step():
    method = midway(Timeline(100, 10, 4, 4), warmup_epochs=2)
    optimizer = method.make_optimizer()
    logged = method.schedule(optimizer, 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4 * 4 / 256 / 2] * 4)
    assert logged["learning_rate"] == optimizer.param_groups[0]["lr"]


# -- moving averages -----------------------------------------------------------------------------------------------


def test_averages_of_several_modules_move_together_by_the_formula():
    average, source = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    matrix, followed = nn.Linear(2, 3), nn.Linear(2, 3)
    before = matrix.weight.detach().double()
    moving = MovingAverage({average: source, matrix: followed})
    source.running_mean.fill_(5.0)
    moving.update(0.9)
    expected = 0.9 * before + 0.1 * followed.weight.detach().double()
    torch.testing.assert_close(matrix.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)
    assert average.running_mean.tolist() == [5.0] * 3


def test_an_average_follows_modules_that_were_moved_to_another_dtype():
    average, source = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    moving = MovingAverage({average: source})
    average.double(), source.double()
    nn.init.normal_(source.weight), source.running_mean.fill_(5.0)
    moving.update(0.0)
    assert torch.equal(average.weight, source.weight)
    assert torch.equal(average.running_mean, source.running_mean)


def test_an_average_of_another_architecture_is_refused():
    with pytest.raises(ValueError, match="needs the parameters of what it follows; these differ"):
        MovingAverage({nn.Linear(2, 3): nn.Linear(2, 4)})
