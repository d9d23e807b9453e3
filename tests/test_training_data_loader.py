"""Micro-batches are a function of their number: not of workers, processes, resumption, or what could not be read."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sources import (
    FaultySource,
    GreySource,
    KilledSource,
    MadeUpSource,
    ProcessSource,
    TerminatedSource,
)
from video_clips import write_clip

from midway_hub.training.compat import Compat
from midway_hub.training.data.clip import Clip
from midway_hub.training.data.loader import ClipBatches
from midway_hub.training.data.quarantine import TooManyRejectedError
from midway_hub.training.data.reading import ReadingProcessDiedError
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.data.sources import build_source
from midway_hub.training.data.synthetic import WorldSettings, WorldSource
from midway_hub.training.data.views import ViewSettings
from midway_hub.training.timeline import Timeline

CPU = torch.device("cpu")
VIEWS = ViewSettings(global_size=16, local_size=16, dense_size=16, local_count=2, initial_area=None)
GROUPS = ("globals", "locals", "dense")
A_LEVEL = 0.02  # of normalised values: one grey level of 255, which rounding may make of a last bit


def make_batches(
    source=None, *, visits=4, pairs=3, workers=0, seed=0, groups=("dense",), compat=None, data=(), **options
):
    settings = DataSettings(workers=workers, pairs_per_visit=pairs, visits_per_step=visits, **dict(data))
    timeline = Timeline(steps=50, steps_per_epoch=10, batch_size=visits * pairs, visits_per_step=visits)
    return ClipBatches(
        MadeUpSource() if source is None else source,
        data=settings,
        needs=needs(groups),
        seed=seed,
        timeline=timeline,
        compat=compat,
        **options,
    )


def needs(groups):
    asked = VIEWS.needs()
    return replace(asked, crops={name: crops for name, crops in asked.crops.items() if name in groups})


def finished(batches, first, last):
    """What the network would get, and what is said of it, micro-batch by micro-batch."""
    return [(batches.finish(batch, CPU), batch["clips"]) for batch in batches.iterate(first, last)]


def assert_equal(one, other):
    assert len(one) == len(other)
    for (views, pairs), (other_views, other_pairs) in zip(one, other, strict=True):
        assert pairs == other_pairs
        assert views.keys() == other_views.keys()
        for group in views:
            torch.testing.assert_close(views[group], other_views[group], rtol=0, atol=A_LEVEL)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three videos, and one that is none."""
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in (("a", 30), ("b", 20), ("c", 25)):
        write_clip(folder / f"{name}.mp4", frames)
    (folder / "d.mp4").write_bytes(b"no video at all" * 100)
    return folder


def clip_settings(clips, **changes):
    return {"source": "videos", "path": clips, "gap": {"frames": [3, 6]}, "max_rejected": 0.3, **changes}


def test_a_micro_batch_holds_the_views_of_all_its_pairs():
    views, pairs = finished(make_batches(groups=GROUPS), 0, 1)[0]
    assert {group: tuple(view.shape) for group, view in views.items()} == {
        "globals": (12, 4, 3, 16, 16),
        "locals": (12, 4, 3, 16, 16),
        "dense": (12, 2, 3, 16, 16),
    }
    assert {view.dtype for view in views.values()} == {torch.float32}
    assert len(pairs) == 12


def test_only_the_groups_asked_for_are_made():
    assert set(finished(make_batches(groups=("globals",)), 0, 1)[0][0]) == {"globals"}


def test_views_are_normalised_by_imagenet_statistics():
    batches = make_batches()
    batch = next(batches.iterate(0, 1))
    levels = batch["payload"].views["dense"].double()
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    expected = (levels / 255 - mean) / std
    torch.testing.assert_close(batches.finish(batch, CPU)["dense"].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("augment", ["cpu", "device"])
def test_number_of_workers_changes_nothing(clips, augment):
    settings = clip_settings(clips, augment=augment)
    source = build_source(DataSettings(**settings))
    alone = finished(make_batches(source, data=settings), 0, 5)
    assert_equal(alone, finished(make_batches(source, workers=2, data=settings), 0, 5))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_way_to_start_workers_gives_the_same(clips, method):
    settings = clip_settings(clips)
    source = build_source(DataSettings(**settings))
    alone = finished(make_batches(source, data=settings), 0, 3)
    started = make_batches(source, workers=2, data=settings | {"start_method": method})
    assert_equal(alone, finished(started, 0, 3))
    assert started.rejected()


def test_iteration_can_start_anywhere():
    assert_equal(finished(make_batches(), 0, 7)[3:], finished(make_batches(), 3, 7))


def test_seeds_give_other_views():
    one, other = (finished(make_batches(seed=seed), 0, 1)[0][0]["dense"] for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_micro_batches_share_the_same_samples(world_size, accumulate):
    whole = finished(make_batches(), 0, 3)
    ranks = [make_batches(rank=rank, world_size=world_size, accumulate=accumulate) for rank in range(world_size)]
    parts = [finished(rank, 0, 3 * accumulate) for rank in ranks]
    for step, (views, pairs) in enumerate(whole):
        shares = [part[number] for number in range(step * accumulate, (step + 1) * accumulate) for part in parts]
        assert [pair for _, some in shares for pair in some] == pairs
        for group in views:
            torch.testing.assert_close(
                torch.cat([share[group] for share, _ in shares]), views[group], rtol=0, atol=A_LEVEL
            )


@pytest.mark.parametrize("same", [True, False])
def test_released_seeding_draws_the_same_views_on_every_process(same):
    compat = Compat(same_seed_on_every_rank=same)
    first, second = (
        finished(make_batches(GreySource(), rank=rank, world_size=2, compat=compat), 0, 2) for rank in (0, 1)
    )
    assert torch.allclose(first[0][0]["dense"], second[0][0]["dense"], atol=A_LEVEL) is same
    assert not torch.equal(first[0][0]["dense"], first[1][0]["dense"])


class MomentSource(MadeUpSource):
    """Pairs of frames at moments that are drawn, as videos give them."""

    def clips(self, index, count, generator):
        frames = np.zeros((24, 32, 3), np.uint8)
        moments = generator.integers(0, 10**6, (count, 2)).tolist()
        return [Clip.of_pair(frames, frames, self.name(index), tuple(moment), 0.5) for moment in moments]


@pytest.mark.parametrize("same", [True, False])
def test_released_seeding_takes_the_same_moments_of_different_videos_on_every_process(same):
    compat = Compat(same_seed_on_every_rank=same)
    names, moments = [], []
    for rank in (0, 1):
        parts = finished(make_batches(MomentSource(), rank=rank, world_size=2, compat=compat), 0, 4)
        pairs = [pair for _, pairs in parts for pair in pairs]
        names.append([name for name, *_ in pairs])
        moments.append([(first, second) for _, first, second, _ in pairs])
    assert (moments[0] == moments[1]) is same
    assert len(set(moments[0])) == len(moments[0])
    assert names[0] != names[1]


@pytest.mark.parametrize("augment", ["cpu", "device"])
@pytest.mark.parametrize("same", [True, False])
def test_released_seeding_draws_worlds_alike_but_for_their_item(augment, same):
    drawn = []

    class Recorded(WorldSource):
        def seeds(self, index, count, generator):
            drawn[-1].append(generator.bit_generator.state["state"]["key"].tolist())
            return super().seeds(index, count, generator)

    source = Recorded(WorldSettings(size=(32, 32), textures={"tiles": 2}), seed=0, length=50)
    for rank in (0, 1):
        drawn.append([])
        batches = make_batches(
            source, rank=rank, world_size=2, compat=Compat(same_seed_on_every_rank=same), data={"augment": augment}
        )
        list(batches.iterate(0, 2))
    assert (drawn[0] == drawn[1]) is same


def test_device_makes_the_views_that_the_cpu_makes():
    cpu, device = (
        finished(make_batches(groups=GROUPS, data={"augment": augment}), 0, 1)[0] for augment in ("cpu", "device")
    )
    assert cpu[1] == device[1]
    for group in GROUPS:
        difference = (cpu[0][group] - device[0][group]).abs()
        assert difference.mean() < 0.02, group
        assert not torch.equal(cpu[0][group][0], cpu[0][group][1])


def test_device_takes_frames_of_several_sizes_and_keeps_their_order():
    sizes = ((24, 32), (20, 20), (24, 32), (30, 18))
    cpu, device = (
        finished(make_batches(MadeUpSource(sizes=sizes), groups=GROUPS, data={"augment": augment}), 0, 2)
        for augment in ("cpu", "device")
    )
    for (views, pairs), (device_views, device_pairs) in zip(cpu, device, strict=True):
        assert pairs == device_pairs
        for group in GROUPS:
            distance = (views[group][:, None] - device_views[group][None]).abs().flatten(2).mean(dim=2)
            assert distance.argmin(dim=1).tolist() == list(range(12)), group


@pytest.mark.gpu
@pytest.mark.parametrize("augment", ["cpu", "device"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_pinned_micro_batches_give_the_same_views_on_a_gpu(augment):
    sizes = ((24, 32), (20, 20))
    options = {"groups": GROUPS, "data": {"augment": augment}}
    expected = finished(make_batches(MadeUpSource(sizes=sizes), **options), 0, 2)
    batches = make_batches(MadeUpSource(sizes=sizes), **options, workers=1, pin_memory=True)
    for (views, pairs), batch in zip(expected, batches.iterate(0, 2), strict=True):
        made = batches.finish(batch, torch.device("cuda"))
        assert batch["clips"] == pairs
        for group in GROUPS:
            assert made[group].device.type == "cuda"
            assert (made[group].cpu() - views[group]).abs().mean() < 0.02, group


def test_global_randomness_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    finished(make_batches(workers=1), 0, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_synthetic_worlds_are_the_same_whether_read_or_rendered_on_the_device():
    settings = {"source": "synthetic", "world": {"size": [32, 48], "textures": {"tiles": 4, "tile_size": 64}}}
    source = build_source(DataSettings(**settings), seed=5)
    cpu, device = (
        finished(make_batches(source, data=settings | {"augment": augment}), 0, 2) for augment in ("cpu", "device")
    )
    for (views, pairs), (device_views, device_pairs) in zip(cpu, device, strict=True):
        assert pairs == device_pairs
        assert len({name for name, *_ in pairs}) == len(pairs)
        assert (views["dense"] - device_views["dense"]).abs().mean() < 0.02
    assert {name for name, *_ in cpu[0][1]}.isdisjoint(name for name, *_ in cpu[1][1])


# What cannot be read


def test_a_bad_file_is_reported_once_with_its_reason(clips):
    settings = clip_settings(clips)
    source = build_source(DataSettings(**settings))
    for workers in (0, 2):
        batches = make_batches(source, workers=workers, data=settings)
        assert batches.rejected() == []
        names = [name for _, pairs in finished(batches, 0, 4) for name, *_ in pairs]
        assert [record["file"] for record in batches.rejected()] == ["d.mp4"]
        assert "cannot be opened as a video" in batches.rejected()[0]["reason"]
        assert set(names) == {"a.mp4", "b.mp4", "c.mp4"}
        assert len(names) == 4 * 12


def test_what_was_read_before_does_not_change_what_is_read():
    shaky = {"bad": (1,), "shaky": (2, 4)}
    everything = finished(make_batches(MadeUpSource(**shaky), data={"max_rejected": 0.5}), 0, 12)
    for start in (3, 8):
        late = finished(make_batches(MadeUpSource(**shaky), data={"max_rejected": 0.5}), start, 12)
        assert_equal(everything[start:], late)
    assert any(name == "2.mp4" for _, pairs in everything for name, *_ in pairs), "shaky items are worth trying again"


def test_a_bad_item_is_opened_once_and_reported_each_time():
    source = MadeUpSource(bad=(1,))
    batches = make_batches(source, data={"max_rejected": 0.5})
    visited = [batch["rejected"] for batch in batches.iterate(0, 10)]
    assert source.opened.count(1) == 1
    assert sum(map(len, visited)) >= 5, "five passes meet it five times at least"


def test_substitutes_are_spread_over_the_other_items():
    source = MadeUpSource(40, bad=(7,))
    batches = make_batches(source, visits=40, pairs=1)
    extra = []
    for batch in batches.iterate(0, 12):
        names = [name for name, *_ in batch["clips"]]
        extra += [name for name in set(names) if names.count(name) == 2]
    assert len(extra) == 12
    assert len(set(extra)) > 6


def test_more_bad_files_than_allowed_stop_the_run_with_a_list():
    batches = make_batches(MadeUpSource(bad=(1, 2, 3)), data={"max_rejected": 0.25})
    with pytest.raises(TooManyRejectedError, match=r"3 of 8 items .* data.max_rejected=0.25; mend or remove") as caught:
        finished(batches, 0, 10)
    for item in (1, 2, 3):
        assert f"\n  {item}.mp4: no index" in str(caught.value)
    assert len(batches.rejected()) == 3


def test_as_many_bad_files_as_allowed_do_not_stop_the_run():
    batches = make_batches(MadeUpSource(bad=(1, 2)), data={"max_rejected": 0.25})
    finished(batches, 0, 10)
    assert len(batches.rejected()) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_at_all_is_an_error_even_where_all_may_be_rejected(workers):
    batches = make_batches(MadeUpSource(3, bad=range(3)), workers=workers, data={"max_rejected": 1.0})
    with pytest.raises(TooManyRejectedError, match=r"no item of the data gives .* micro-batch 0:\n  .*no index"):
        finished(batches, 0, 1)


def test_a_single_video_with_damage_gives_other_pairs_and_says_so():
    batches = make_batches(MadeUpSource(1, shaky=(0,)), data={"max_rejected": 1.0})
    assert len(finished(batches, 0, 4)) == 4
    assert batches.rejected() == [{"file": "0.mp4", "reason": "a frame is damaged"}]


def test_frames_too_small_for_views_are_rejected():
    batches = make_batches(MadeUpSource(sizes=((1, 40), (24, 32))), data={"max_rejected": 0.5})
    finished(batches, 0, 2)
    assert batches.rejected()[0]["reason"] == "its frames are 40x1 pixels, too small for views"


def test_an_error_in_a_source_is_not_taken_for_a_bad_file():
    for workers in (0, 1):
        with pytest.raises(KeyError, match="no such thing"):
            finished(make_batches(FaultySource(), workers=workers), 0, 1)


# Worker processes


def test_workers_last_for_the_iteration_and_use_one_thread_each():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        batches = make_batches(ProcessSource(), workers=2)
        names = [name for batch in batches.iterate(0, 12) for name, *_ in batch["clips"]]
    finally:
        torch.set_num_threads(threads)
    processes, counts = (set(column) for column in zip(*(name.split() for name in names), strict=True))
    assert counts == {"1"}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


def test_an_unfinished_iteration_ends_its_workers():
    before = set(multiprocessing.active_children())
    unfinished = make_batches(workers=2).iterate(0, 10)
    next(unfinished)
    assert len(set(multiprocessing.active_children()) - before) == 2
    unfinished.close()
    assert set(multiprocessing.active_children()) <= before


def test_a_killed_worker_is_an_error_that_says_what_to_do():
    batches = make_batches(KilledSource(), workers=1)
    with pytest.raises(ReadingProcessDiedError, match=r"data died .* lower data.workers \(1\) or data.prefetch \(2\)"):
        finished(batches, 0, 5)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is not known here")
def test_signals_to_all_processes_leave_the_workers_reading():
    assert_equal(finished(make_batches(), 0, 4), finished(make_batches(TerminatedSource(), workers=2), 0, 4))


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_its_workers(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing
            from test_training_data_loader import make_batches

            if __name__ == "__main__":
                for number, batch in enumerate(make_batches(workers=2).iterate(0, 10**6)):
                    if number == 3:
                        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


# What identifies the data


def test_fingerprint_is_plain_data_and_knows_how_pairs_are_taken():
    fingerprint = make_batches().fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint == {"kind": "made up", "items": 8, "gap": "15-30 frames", "pairs_per_visit": 3}
    assert make_batches(pairs=2).fingerprint() != fingerprint
    assert make_batches(data={"gap": {"frames": [3, 4]}}).fingerprint() != fingerprint
    assert make_batches(workers=3).fingerprint() == fingerprint
