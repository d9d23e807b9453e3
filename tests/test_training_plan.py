"""Derived numbers of a run follow from its configuration, the data and the processes."""

import pytest

from midway_hub.training.config import ConfigError, load_config
from midway_hub.training.plan import make_plan

BDD_VIDEOS = 70_000


def plan_of(recipe, *overrides, items, world_size=1):
    return make_plan(load_config(recipe, list(overrides)), items=items, world_size=world_size)


def named(plan):
    return {derived.name: derived.value for derived in plan.derived}


def test_bdd100k_comes_out_as_the_paper_reports():
    """300 epochs are 60 passes over 70,000 files with 5 pairs per opened video, 200 pairs a step (spec section 6)."""
    plan = plan_of("paper/bdd_vits", "data.path=x", items=BDD_VIDEOS, world_size=2)
    assert plan.timeline.batch_size == 200
    assert plan.timeline.steps == 300 * 350
    assert named(plan)["passes over the data"] == 60
    assert named(plan)["peak learning rate"] == pytest.approx(5e-4 * 200 / 256)
    assert plan.visits_per_micro_batch == 20


def test_the_released_epoch_counter_moves_by_five_a_pass():
    timeline = plan_of("paper/bdd_vits", "data.path=x", items=BDD_VIDEOS, world_size=2).timeline
    one_pass = BDD_VIDEOS // 40
    assert [timeline.epoch(step) for step in (0, one_pass - 1, one_pass, 2 * one_pass)] == [0, 0, 5, 10]
    plain = plan_of("paper/bdd_vits", "data.path=x", "compat.epochs_advance_by_repeats=false", items=BDD_VIDEOS)
    assert [plain.timeline.epoch(step) for step in (0, 349, 350, one_pass)] == [0, 0, 1, 5]


def test_walking_tours_keeps_the_factor_five_in_its_learning_rate():
    plan = plan_of("paper/wt_venice_vits", "data.path=x", items=100_000, world_size=4)
    assert plan.timeline.batch_size == 80
    assert plan.lr_batch_size == 400
    assert named(plan)["peak learning rate"] == pytest.approx(5e-4 * 400 / 256)
    fixed = plan_of(
        "paper/wt_venice_vits", "data.path=x", "compat.lr_counts_repeats=false", items=100_000, world_size=4
    )
    assert fixed.lr_batch_size == 80


def test_accumulation_and_processes_share_the_same_step():
    alone = plan_of("smoke", items=100)
    shared = plan_of("smoke", "engine.accumulate=2", items=100, world_size=2)
    assert shared.timeline == alone.timeline
    assert shared.visits_per_micro_batch * 4 == alone.visits_per_micro_batch


def test_visits_that_cannot_be_shared_are_refused_with_the_nearest_rule():
    with pytest.raises(ConfigError, match=r"data\.visits_per_step 4 cannot be shared by 3 processes .* multiple of 3"):
        plan_of("smoke", items=100, world_size=3)


def test_a_data_set_smaller_than_a_step_has_epochs_of_one_step():
    assert plan_of("smoke", "data.epoch_pairs=null", items=3).timeline.steps_per_epoch == 1


def test_every_derived_number_has_a_reason():
    plan = plan_of("paper/bdd_vits", "data.path=x", items=BDD_VIDEOS, world_size=2)
    assert all(derived.reason for derived in plan.derived)
    assert "clip_student_only" in named(plan)["compat switches on"]
