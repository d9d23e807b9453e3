"""Mixtures of flow data sets, and the check before training."""

import logging
from collections import Counter

import numpy as np
import pytest
from flow_trees import make_tree
from pydantic import ValidationError

from midway_hub.training.data.flow import (
    ABLATION_MIX,
    PAPER_MIX,
    FlowMixSettings,
    FlowPart,
    MixedFlow,
    WorldFlow,
    build_flow_dataset,
    build_flow_mix,
    check_flow_datasets,
)
from midway_hub.training.data.flow.datasets import _SETS
from midway_hub.training.data.synthetic import TextureSettings, WorldSettings, held_out_seeds

FEW = TextureSettings(tiles=4, tile_size=32)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Folders of tiny copies of the data sets of the paper's mixture."""
    folder = tmp_path_factory.mktemp("flow")
    for family in ("sintel", "things", "chairs", "tartanair"):
        make_tree(family, folder / family)
    return {family.name: family for family in folder.iterdir()}


def test_the_papers_mixture_has_793052_entries():
    entries = {part.name: part.repeat * _SETS[part.name].expected for part in PAPER_MIX}
    assert sum(entries.values()) == 793_052
    assert entries["sintel/subtrain/clean"] + entries["sintel/subtrain/final"] == 75_440
    assert entries["things/train/clean"] + entries["things/train/final"] == 322_416
    assert entries["chairs/train"] == 88_928
    assert entries["tartanair/train"] == 306_268


def test_the_ablation_mixture_is_chairs_and_things():
    assert {part.name.split("/")[0] for part in ABLATION_MIX} == {"chairs", "things"}


def test_the_papers_mixture_counts_each_pair_as_often_as_it_should(roots):
    mix = build_flow_mix(FlowMixSettings(roots=roots))
    pairs = {count.name: count.pairs for count in mix.counts}
    assert pairs["sintel/subtrain/clean"] == 2
    assert pairs["things/train/final"] == 10
    assert pairs["tartanair/train"] == 4
    assert len(mix) == sum(count.entries for count in mix.counts) == 40 * 2 * 2 + 4 * 10 * 2 + 4 * 3 + 4
    visits = Counter((dataset.name, number) for dataset, number in map(mix.locate, range(len(mix))))
    assert visits == {(part.name, i): part.repeat for part in PAPER_MIX for i in range(pairs[part.name])}


def test_an_entry_is_the_pair_of_its_part(roots):
    chairs = build_flow_dataset("chairs/train", roots["chairs"])
    worlds = WorldFlow(WorldSettings(size=(16, 16), textures=FEW), held_out_seeds(2))
    mix = MixedFlow([(chairs, 2), (worlds, 1)])
    assert [mix[i].name for i in range(len(mix))] == [
        *(2 * ["00001", "00003", "00004"]),
        *(f"world {seed}" for seed in held_out_seeds(2)),
    ]
    np.testing.assert_array_equal(mix[4].flow, chairs[1].flow)
    with pytest.raises(IndexError, match="entries 0 to 7, got 8"):
        mix[8]


def test_training_does_not_read_occlusions(roots):
    mix = build_flow_mix(FlowMixSettings(roots=roots))
    assert all(mix[i].occluded is None for i in range(0, len(mix), 20))


def test_a_part_can_have_its_own_folder_and_options(roots):
    part = FlowPart(name="things/train/clean", root=roots["things"], options={"directions": ["into_past"]})
    assert build_flow_mix(FlowMixSettings(parts=[part])).counts == [("things/train/clean", 5, 1)]


def test_a_mixture_is_sparse_if_a_part_is(roots, tmp_path):
    make_tree("hd1k", tmp_path)
    chairs, hd1k = build_flow_dataset("chairs/train", roots["chairs"]), build_flow_dataset("hd1k/train", tmp_path)
    assert MixedFlow([(chairs, 1), (hd1k, 1)]).sparse
    assert not MixedFlow([(chairs, 1)]).sparse
    assert [MixedFlow([(chairs, 1), (hd1k, 1)])[i].sparse for i in (0, 3)] == [False, True]


def test_a_part_without_folder_says_which_setting_gives_it():
    with pytest.raises(ValueError, match=r"chairs/train: no folder is given; set roots\.chairs"):
        build_flow_mix(FlowMixSettings(parts=ABLATION_MIX, roots={}))


def test_unknown_names_are_refused_when_settings_are_read():
    with pytest.raises(ValidationError, match="did you mean chairs/train"):
        FlowPart(name="chairs/trian")
    with pytest.raises(ValidationError, match="roots has chair; there are chairs"):
        FlowMixSettings(roots={"chair": "."})


@pytest.mark.parametrize("changes", [{"parts": []}, {"parts": [{"name": "chairs/train", "repeat": 0}]}])
def test_mixtures_of_nothing_are_refused(changes):
    with pytest.raises(ValidationError):
        FlowMixSettings(**changes)


def test_a_mixture_without_parts_is_refused():
    with pytest.raises(ValueError, match="without parts has 0 pairs"):
        MixedFlow([])


def test_the_fingerprint_changes_with_a_repeat(roots):
    chairs = build_flow_dataset("chairs/train", roots["chairs"])
    once, twice = (MixedFlow([(chairs, repeat)]).fingerprint() for repeat in (1, 2))
    assert once != twice
    assert twice["parts"][0]["files"] == chairs.fingerprint()["files"]


def test_missing_files_are_counted_and_named_before_training(tmp_path, roots, caplog):
    make_tree("sintel", tmp_path)
    gone = [f"training/clean/alley_1/frame_000{number}.png" for number in (1, 3)]
    for name in gone:
        (tmp_path / name).unlink()
    mix = build_flow_mix(
        FlowMixSettings(
            parts=[FlowPart(name="sintel/subtrain/clean", repeat=40), FlowPart(name="chairs/train")],
            roots={"sintel": tmp_path, "chairs": roots["chairs"]},
        )
    )
    assert mix.missing() == [str(tmp_path / name) for name in gone]
    with pytest.raises(FileNotFoundError, match=r"clean: 2 pairs, 2 files are missing: .*frame_0001\.png, "):
        check_flow_datasets([mix])
    with caplog.at_level(logging.INFO, "midway_hub"):
        checks = check_flow_datasets([mix], allowed=1.0)
    assert [(check.name, check.pairs, len(check.missing)) for check in checks] == [
        ("sintel/subtrain/clean", 2, 2),
        ("chairs/train", 3, 0),
    ]
    assert "chairs/train: 3 pairs, all files are there" in caplog.text


def test_many_missing_files_are_named_in_part(tmp_path):
    make_tree("kitti2015", tmp_path)
    for number in range(6):
        (tmp_path / f"training/image_2/{number:06d}_11.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"6 files are missing: .*000002_11\.png and 3 more\n"):
        check_flow_datasets([build_flow_dataset("kitti2015/train", tmp_path)], allowed=0.1)


def test_worlds_miss_nothing():
    (check,) = check_flow_datasets([WorldFlow(WorldSettings(), held_out_seeds(3))])
    assert check.missing == ()
    assert check.pairs == 3
