"""Batches of labelled examples: a pure function of their number, whatever reads them and whatever is unreadable."""

import numpy as np
import pytest
import torch

from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.quarantine import TooManyRejectedError
from midway_hub.training.data.supervised import LoadingSettings, SupervisedBatches
from midway_hub.training.data.synthetic import WorldSettings, held_out_seeds
from midway_hub.training.data.synthetic.examples import WorldBatches, WorldExamples
from midway_hub.training.timeline import Timeline

CPU = torch.device("cpu")
WORLD = WorldSettings(size=(32, 48))


class Numbered:
    """Ten grey pictures that show their number, with one random draw each; some cannot be read."""

    def __init__(self, broken=()):
        self.broken = set(broken)

    def __len__(self):
        return 10

    def example(self, index, generator):
        if index in self.broken:
            raise SampleError(f"{index}.png", "it is broken")
        image = np.full((3, 4, 6), index, np.uint8)
        return {"image": image, "draw": np.asarray(generator.random(), np.float32)}

    def fingerprint(self):
        return {"name": "numbered"}


def make(examples=None, *, batch_size=4, **options):
    loading = LoadingSettings(batch_size=batch_size, workers=options.pop("workers", 0), max_rejected=0.5)
    timeline = Timeline(steps=20, steps_per_epoch=5, batch_size=batch_size, visits_per_step=batch_size)
    return SupervisedBatches(examples or Numbered(), loading, seed=3, timeline=timeline, **options)


def numbers(batch):
    return batch["arrays"]["image"][:, 0, 0, 0].tolist()


def draws(batch):
    return batch["arrays"]["draw"].tolist()


def test_a_pass_takes_every_example_once():
    seen = [number for batch in make(batch_size=5).iterate(0, 2) for number in numbers(batch)]
    assert sorted(seen) == list(range(10))


def test_batches_do_not_depend_on_where_reading_begins():
    whole = list(make().iterate(0, 6))
    resumed = list(make().iterate(4, 6))
    assert [numbers(b) for b in resumed] == [numbers(b) for b in whole[4:]]
    assert [draws(b) for b in resumed] == [draws(b) for b in whole[4:]]


def test_batches_do_not_depend_on_worker_processes():
    alone, with_workers = (list(make(workers=workers).iterate(0, 4)) for workers in (0, 2))
    assert [draws(b) for b in alone] == [draws(b) for b in with_workers]


def test_two_processes_share_the_examples_of_a_step():
    (whole,) = make().iterate(1, 2)
    shares = [next(iter(make(rank=rank, world_size=2).iterate(1, 2))) for rank in (0, 1)]
    assert numbers(shares[0]) + numbers(shares[1]) == numbers(whole)


def test_an_unreadable_example_gives_its_turn_to_another_and_is_named():
    batches = make(Numbered(broken=[2, 7]))
    seen = [number for batch in batches.iterate(0, 5) for number in numbers(batch)]
    assert len(seen) == 20
    assert not {2, 7} & set(seen)
    assert {entry["file"] for entry in batches.rejected()} == {"2.png", "7.png"}


def test_what_takes_an_unreadable_turn_does_not_depend_on_what_was_read_before():
    whole = [numbers(b) for b in make(Numbered(broken=[2, 7])).iterate(0, 5)]
    assert [numbers(b) for b in make(Numbered(broken=[2, 7])).iterate(3, 5)] == whole[3:]


def test_too_many_unreadable_examples_stop_the_run():
    with pytest.raises(TooManyRejectedError, match="it is broken"):
        list(make(Numbered(broken=range(6))).iterate(0, 5))


def test_frames_are_normalised_and_other_arrays_left_alone():
    batches = make()
    (batch,) = batches.iterate(0, 1)
    finished = batches.finish(batch, CPU)
    grey = batch["arrays"]["image"].double() / 255
    mean, std = (torch.tensor(v, dtype=torch.double).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(finished["image"].double(), (grey - mean) / std, atol=1e-5, rtol=0)
    assert torch.equal(finished["draw"], batch["arrays"]["draw"])


@pytest.mark.parametrize("task", ["flow", "segmentation"])
def test_worlds_are_the_same_whether_read_or_rendered_on_the_device(task):
    examples = WorldExamples(WORLD, task, length=100)
    timeline = Timeline(steps=20, steps_per_epoch=5, batch_size=3, visits_per_step=3)
    read = SupervisedBatches(examples, LoadingSettings(batch_size=3, workers=0), seed=1, timeline=timeline)
    rendered = WorldBatches(examples, seed=1, timeline=timeline)
    for batches in (read, rendered):
        assert batches.rejected() == []
    first, second = (b.finish(next(iter(b.iterate(2, 3))), CPU) for b in (read, rendered))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_training_worlds_are_never_held_out():
    batches = WorldBatches(
        WorldExamples(WORLD, "flow"),
        seed=0,
        timeline=Timeline(steps=50, steps_per_epoch=5, batch_size=8, visits_per_step=8),
    )
    seeds = [seed for batch in batches.iterate(0, 50) for seed in batch["seeds"]]
    assert len(set(seeds)) == 400
    assert max(seeds) < min(held_out_seeds(1))
