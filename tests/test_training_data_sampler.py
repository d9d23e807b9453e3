"""Which items are visited when: whole passes, and steps that do not depend on how they are shared."""

import itertools

import pytest

from midway_hub.training.data.randomness import generator
from midway_hub.training.data.sampler import Sampler
from midway_hub.training.timeline import Timeline

VISITS, PAIRS = 12, 5


def make_sampler(items=50, *, seed=3, visits=VISITS, steps=100, **options):
    timeline = Timeline(steps=steps, steps_per_epoch=10, batch_size=visits * PAIRS, visits_per_step=visits)
    return Sampler(items, seed=seed, timeline=timeline, **options)


def visits_of_step(step, world_size, accumulate, **options):
    """What all processes take, micro-batch by micro-batch."""
    samplers = [
        make_sampler(rank=rank, world_size=world_size, accumulate=accumulate, **options) for rank in range(world_size)
    ]
    numbers = range(step * accumulate, (step + 1) * accumulate)
    return [visit for number in numbers for sampler in samplers for visit in sampler.micro_batch(number)]


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 2), (2, 1), (3, 2), (2, 6), (12, 1)])
def test_a_step_takes_the_same_visits_however_it_is_shared(world_size, accumulate):
    for step in (0, 7):
        assert visits_of_step(step, world_size, accumulate) == visits_of_step(step, 1, 1)


def test_steps_follow_each_other_without_overlap():
    numbers = [visit.number for step in range(20) for visit in visits_of_step(step, 2, 3)]
    assert numbers == list(range(20 * VISITS))


def test_every_pass_takes_every_item_once():
    sampler = make_sampler(items=50)
    for number in range(3):
        assert sorted(sampler.item(visit) for visit in range(50 * number, 50 * number + 50)) == list(range(50))


def test_passes_and_seeds_differ_in_order():
    orders = {
        tuple(make_sampler(seed=seed).item(visit) for visit in range(50 * number, 50 * number + 50))
        for seed, number in itertools.product((1, 2), (0, 1, 2))
    }
    assert len(orders) == 6


def test_released_sampler_repeats_the_order_of_the_first_pass():
    repeating, plain = make_sampler(repeats_order=True), make_sampler()
    assert [repeating.item(visit) for visit in range(150)] == 3 * [plain.item(visit) for visit in range(50)]


def test_length_of_the_run_does_not_change_what_is_taken():
    assert make_sampler(steps=10).micro_batch(4) == make_sampler(steps=1000).micro_batch(4)


def test_every_visit_is_drawn_by_a_number_of_its_own():
    numbers = [visit.drawn_by for step in range(3) for visit in visits_of_step(step, 2, 2)]
    assert numbers == list(range(3 * VISITS))


def test_released_seeding_draws_alike_on_all_processes_and_differently_in_time():
    ranks = [
        [
            visit.drawn_by
            for number in range(6)
            for visit in make_sampler(rank=rank, world_size=3, accumulate=2, same_draws_on_every_rank=True).micro_batch(
                number
            )
        ]
        for rank in range(3)
    ]
    assert ranks[0] == ranks[1] == ranks[2]
    assert len(set(ranks[0])) == len(ranks[0])


def test_fewer_items_than_visits_of_a_step_are_taken_in_turn():
    items = [visit.item for visit in make_sampler(items=5).micro_batch(0)]
    assert sorted(items[:5]) == sorted(items[5:10]) == list(range(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world_size": 5}, "12 visits a step cannot be shared by 5 processes x 1 micro-batches; .* a multiple of 5"),
        ({"world_size": 2, "accumulate": 4}, "2 processes x 4 micro-batches; .* a multiple of 8"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not one of 2 processes"),
    ],
)
def test_visits_that_cannot_be_shared_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_sampler(**options)


def test_pairs_that_cannot_be_shared_among_visits_are_refused():
    timeline = Timeline(steps=1, steps_per_epoch=1, batch_size=10, visits_per_step=4)
    with pytest.raises(ValueError, match="10 pairs a step cannot be shared by 4 visits"):
        Sampler(5, seed=0, timeline=timeline)


def test_randomness_of_different_purposes_and_numbers_differs():
    keys = [
        (0, "views", 1),
        (1, "views", 1),
        (0, "frames", 1),
        (0, "views", 2),
        (0, "views", 1, 0),
        (0, "views", 1 + 2**32),
    ]
    drawn = {tuple(generator(*key).integers(2**32, size=4)) for key in keys}
    assert len(drawn) == len(keys)
    assert (generator(0, "views", 1).random(3) == generator(0, "views", 1).random(3)).all()
