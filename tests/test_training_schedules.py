import pytest
import torch
from midway_hub.training.compat import Compat
from midway_hub.training.ema import MovingAverage
from midway_hub.training.methods import make_method
from midway_hub.training.schedules import cosine, schedule_position, warmup_cosine
from midway_hub.training.timeline import Timeline
from torch import nn

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


def test_schedules_follow_an_epoch_counter_that_jumps():
    """The released recipe reads a schedule of epochs · steps-of-a-pass entries at epoch · steps-of-a-pass + step."""
    timeline = Timeline(steps=60, steps_per_epoch=2, batch_size=10, visits_per_step=2, epoch_stride=5)
    steps_of_a_pass, epochs = 10, 30
    entries = epochs * steps_of_a_pass
    for step in range(timeline.steps):
        passed, within = divmod(step, steps_of_a_pass)
        read_at = 5 * passed * steps_of_a_pass + within
        assert schedule_position(step, timeline) / timeline.steps == pytest.approx(read_at / entries)


def test_schedules_follow_the_step_where_the_epoch_counter_does_not_jump():
    assert [schedule_position(step, Timeline(20, 3, 1, 1)) for step in range(20)] == list(range(20))


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
