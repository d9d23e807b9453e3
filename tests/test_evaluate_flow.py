"""Evaluating flow: what is written, what is kept over an interruption, and what is refused."""

import json
import math
from importlib.metadata import version

import numpy as np
import pytest
from conftest import make_tiny_net
from evaluation_sets import InMemory, flow_sample, shifted_pairs
from flow_trees import make_tree
from PIL import Image
from typer.testing import CliRunner

from midway_hub.flow_peers import DIS
from midway_hub.training.__main__ import app
from midway_hub.training.data.flow import build_flow_dataset
from midway_hub.training.evaluation.flow.estimators import ZeroMotion
from midway_hub.training.evaluation.flow.evaluate import evaluate_flow
from midway_hub.training.evaluation.flow.networks import NetworkFlow
from midway_hub.training.evaluation.flow.pictures import flow_strip
from midway_hub.training.evaluation.flow.tables import error_table, flow_tables, region_table, sequence_table
from midway_hub.training.evaluation.probes import flow_probe
from midway_hub.training.evaluation.records import RecordMismatchError

FLOW_HEAD = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 4, "tile": (32, 48)}
SHIFT = (3, -2)
SPEED = math.hypot(*SHIFT)


class Constant:
    """Estimates the same flow everywhere, counts how often, and can break down at a pair."""

    def __init__(self, flow=SHIFT, *, name="constant", breaks_at=None, **settings):
        self.flow, self.name, self.settings = flow, name, {"kind": "constant", "flow": list(flow), **settings}
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, first, second):
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        return np.broadcast_to(np.float32(self.flow)[:, None, None], (2, *first.shape[:2])).copy()


def pairs(count=4):
    return InMemory(shifted_pairs(count, shift=SHIFT))


def stored(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_estimator_is_measured_on_every_pair():
    result = evaluate_flow(pairs(), [ZeroMotion(), Constant()])
    assert result.estimators["zero"].numbers.pooled["epe"] == pytest.approx(SPEED)
    assert result.estimators["constant"].numbers.pooled["epe"] == 0
    assert result.estimators["zero"].numbers.pairs == {"even": 2, "odd": 2}
    assert result.resolutions == {"48x64": 4}


def test_the_folder_holds_numbers_with_everything_they_depend_on(tmp_path):
    net = make_tiny_net(flow_head=FLOW_HEAD)
    evaluate_flow(pairs(2), [NetworkFlow(net, tile=(32, 32), overlap=0.7), ZeroMotion()], out=tmp_path)
    written = stored(tmp_path)
    settings = written["estimators"]["network"]["settings"]
    assert (settings["tile"], settings["overlap"], settings["short_side"]) == ([32, 32], 0.7, None)
    assert (settings["dtype"], settings["device"]) == ("float32", "cpu")
    assert len(settings["sha256"]) == 64
    assert written["protocol"]["data"] == {"name": "in/memory", "pairs": 2, "files": "0123"}
    assert written["versions"]["torch"] == version("torch")
    assert written["estimators"]["zero"]["numbers"]["pooled"]["epe"] == pytest.approx(SPEED)
    assert written["resolutions"] == {"48x64": 2}


def test_numbers_that_do_not_exist_are_null_in_the_file_and_a_dash_in_the_table(tmp_path):
    result = evaluate_flow(pairs(2), [ZeroMotion()], out=tmp_path)
    assert stored(tmp_path)["estimators"]["zero"]["numbers"]["pooled"]["occluded/epe"] is None
    assert region_table(result).rows[0] == ["zero", f"{SPEED:.2f}", "-", "-", "-", "-"]


def test_a_data_set_without_a_valid_pixel_gives_dashes():
    nothing = flow_sample(np.ones((8, 8, 2)), valid=np.zeros((8, 8), bool))
    row = error_table(evaluate_flow(InMemory([nothing]), [ZeroMotion()])).rows[0]
    assert row[:8] == ["zero", *"-------"]


def test_tables_have_a_row_per_estimator_and_a_row_per_sequence():
    result = evaluate_flow(pairs(3), [ZeroMotion(), Constant((0, 0), name="other")])
    assert [row[0] for row in error_table(result).rows] == ["zero", "other"]
    assert sequence_table(result).rows == [["even", "2", *[f"{SPEED:.2f}"] * 2], ["odd", "1", *[f"{SPEED:.2f}"] * 2]]
    assert [len(row) == len(table.header) for table in flow_tables(result) for row in table.rows] == [True] * 6


def test_the_table_says_resolution_tiles_and_overlap():
    result = evaluate_flow(pairs(1), [Constant(tile=[320, 384], overlap=0.9), Constant(name="small", short_side=32)])
    assert [row[-1] for row in error_table(result).rows] == ["own size, 320x384 tiles, overlap 0.9", "short side 32"]


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate_flow(pairs(), [Constant((1, 1), breaks_at=2)], out=tmp_path, pictures=0)
    assert not (tmp_path / "results.json").exists()
    again, data = Constant((1, 1)), pairs()
    result = evaluate_flow(data, [again], out=tmp_path, pictures=0)
    assert again.calls == 2
    assert data.reads == [0, 0, 1, 1]
    whole = evaluate_flow(pairs(), [Constant((1, 1))])
    assert result.estimators["constant"].numbers.pooled == pytest.approx(
        whole.estimators["constant"].numbers.pooled, nan_ok=True
    )


def test_a_line_that_was_torn_by_an_interruption_is_measured_again(tmp_path):
    evaluate_flow(pairs(), [Constant()], out=tmp_path, pictures=0)
    lines = tmp_path / "per_pair.jsonl"
    lines.write_text(lines.read_text()[:-40])
    again = Constant()
    evaluate_flow(pairs(), [again], out=tmp_path, pictures=0)
    assert again.calls == 1
    assert [json.loads(line)["index"] for line in lines.read_text().splitlines()] == [0, 1, 2, 3]


def test_an_estimator_can_be_added_to_a_folder_later(tmp_path):
    evaluate_flow(pairs(), [Constant()], out=tmp_path)
    first, other = Constant(), Constant((0, 0), name="other")
    result = evaluate_flow(pairs(), [first, other], out=tmp_path)
    assert (first.calls, other.calls) == (0, 4)
    assert list(result.estimators) == ["constant", "other"]


def test_other_settings_under_the_same_name_are_refused_with_the_difference(tmp_path):
    evaluate_flow(pairs(), [Constant(tile=[320, 384], overlap=0.7)], out=tmp_path)
    with pytest.raises(RecordMismatchError, match=r"constant\.overlap: 0\.7 in the folder, 0\.9 now"):
        evaluate_flow(pairs(), [Constant(tile=[320, 384], overlap=0.9)], out=tmp_path)


def test_another_data_set_in_the_folder_is_refused_with_the_difference(tmp_path):
    evaluate_flow(pairs(4), [Constant()], out=tmp_path)
    with pytest.raises(RecordMismatchError, match=r"protocol\.data\.pairs: 4 in the folder, 3 now"):
        evaluate_flow(pairs(3), [Constant()], out=tmp_path)


def test_a_limit_spreads_over_the_data_set_and_can_be_raised(tmp_path):
    data = pairs(4)
    result = evaluate_flow(data, [Constant()], out=tmp_path, limit=2, pictures=0)
    assert data.reads == [1, 0, 1, 0]
    assert (result.pairs, result.of) == (2, 4)
    assert "2 of 4 pairs" in error_table(result).title
    more = Constant()
    assert evaluate_flow(pairs(4), [more], out=tmp_path, pictures=0).pairs == 4
    assert more.calls == 2


def test_pictures_are_drawn_for_every_estimator_of_some_pairs(tmp_path):
    evaluate_flow(pairs(4), [ZeroMotion(), Constant()], out=tmp_path, pictures=2)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["000000_constant.png", "000000_zero.png", "000002_constant.png", "000002_zero.png"]


def test_pictures_that_are_asked_for_later_are_drawn_without_counting_twice(tmp_path):
    evaluate_flow(pairs(4), [Constant()], out=tmp_path, pictures=0)
    result = evaluate_flow(pairs(4), [Constant()], out=tmp_path, pictures=1)
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    assert sum(result.estimators["constant"].numbers.pairs.values()) == 4
    assert len((tmp_path / "per_pair.jsonl").read_text().splitlines()) == 4


def test_a_strip_shows_frames_truth_estimate_and_error():
    sample = shifted_pairs(1, shift=SHIFT)[0]
    perfect, wrong = (Constant(flow)(sample.first, sample.second) for flow in (SHIFT, (30, 30)))
    strips = [np.asarray(flow_strip(sample, flow, estimator="x", width=64)) for flow in (perfect, wrong)]
    panels = [[strip[26:, 72 * n : 72 * n + 64] for n in range(5)] for strip in strips]
    assert strips[0].shape == (48 + 26, 5 * 64 + 4 * 8, 3)
    np.testing.assert_array_equal(panels[0][0], sample.first)
    np.testing.assert_array_equal(panels[0][2], panels[0][3])  # truth and a perfect estimate have the same colours
    assert (panels[1][2] != panels[1][3]).any()
    assert panels[0][4].mean() < 10 < 200 < panels[1][4].mean()  # no error is dark, a large one bright


def test_a_strip_of_a_finer_truth_has_panels_of_one_size():
    sample = flow_sample(np.ones((32, 48, 2)), scale=2)
    assert flow_strip(sample, np.zeros((2, 16, 24), np.float32), estimator="x", width=48).height == 32 + 26


def test_missing_files_are_counted_and_named_before_anything_is_measured():
    estimator = Constant()
    with pytest.raises(FileNotFoundError, match=r"in/memory lacks 7 files:\n  0\.png\n(.*\n)+.* and 2 more"):
        evaluate_flow(InMemory(shifted_pairs(1), missing=[f"{n}.png" for n in range(7)]), [estimator])
    assert estimator.calls == 0


def test_fewer_pairs_than_published_are_warned_of(caplog):
    data = pairs(2)
    data.expected = 22232
    with caplog.at_level("WARNING", logger="midway_hub"):
        evaluate_flow(data, [ZeroMotion()])
    assert "in/memory has 2 of the 22232 items that are published" in caplog.text


@pytest.mark.parametrize(
    ("estimators", "options", "message"),
    [
        ([], {}, "no estimator is given"),
        ([ZeroMotion(), ZeroMotion()], {}, "two estimators are called 'zero'"),
        ([ZeroMotion()], {"limit": 0}, "limit must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(estimators, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_flow(pairs(1), estimators, **options)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="in/memory holds nothing to evaluate on"):
        evaluate_flow(InMemory([]), [ZeroMotion()])


def test_an_estimate_with_nan_stops_the_evaluation_and_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match=r"pair 0: the estimate holds .* NaN"):
        evaluate_flow(pairs(1), [Constant((np.nan, 0), name="broken")], out=tmp_path)
    assert not (tmp_path / "per_pair.jsonl").exists()


def test_progress_counts_pairs():
    seen = []
    evaluate_flow(pairs(2), [ZeroMotion()], progress=lambda *at: seen.append(at))
    assert seen == [("pairs", 0, 2), ("pairs", 1, 2), ("pairs", 2, 2)]


# -- on files ----------------------------------------------------------------------------------------------------------


def test_springs_finer_truth_and_kittis_sparse_one_are_read_and_measured(tmp_path):
    for name, scale in (("spring/train", 2), ("kitti2015/train", 1)):
        tree = make_tree(name.split("/")[0], tmp_path / name)
        data = build_flow_dataset(name, tree.root)
        found = evaluate_flow(data, [ZeroMotion()]).estimators["zero"].numbers
        nearest = []
        for sample in data:
            assert sample.flow_scale == scale
            speed = np.where(sample.valid, np.hypot(*sample.flow.astype(float).transpose(2, 0, 1)), np.inf)
            height, width = sample.first.shape[:2]
            nearest += list(speed.reshape(height, scale, width, scale).min(axis=(1, 3)).ravel())
        assert found.pooled["epe"] == pytest.approx(np.mean([speed for speed in nearest if np.isfinite(speed)]))


def test_on_real_chairs_dis_beats_zero_motion_which_errs_by_the_length_of_the_flow(shared, tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "data").mkdir()
    for folder in ("chairs_0", "chairs_1"):
        for file in (shared / "data" / "flow" / folder).glob("0000*"):
            (tmp_path / "data" / file.name).symlink_to(file)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n1\n")
    data = build_flow_dataset("chairs/train", tmp_path)
    result = evaluate_flow(data, [ZeroMotion(), DIS()], out=tmp_path / "out", pictures=1).estimators
    flows = [np.fromfile(file, np.float32, offset=12).reshape(-1, 2) for file in (tmp_path / "data").glob("*.flo")]
    speeds = np.hypot(*np.concatenate(flows).astype(float).T)
    assert result["zero"].numbers.pooled["epe"] == pytest.approx(speeds.mean(), rel=1e-9)
    assert result["zero"].numbers.pooled["bad_3"] == pytest.approx(100 * (speeds > 3).mean(), rel=1e-9)
    assert result["dis"].numbers.pooled["epe"] < 0.6 * speeds.mean()


# -- while training ----------------------------------------------------------------------------------------------------


def test_the_probe_gives_what_the_evaluation_gives():
    net, data = make_tiny_net(flow_head=FLOW_HEAD), pairs(3)
    found = flow_probe(data, limit=2)(net)
    numbers = evaluate_flow(InMemory(data.samples[:2]), [NetworkFlow(net)]).estimators["network"].numbers.pooled
    assert found["flow/epe"] == pytest.approx(numbers["epe"])
    assert found["flow/epe_over_zero"] == pytest.approx(numbers["epe"] / SPEED)
    assert found["flow/fl_all"] == pytest.approx(numbers["fl_all"])
    assert data.reads == [1, 1, 0]


def test_a_probe_needs_something_to_measure_on():
    with pytest.raises(ValueError, match="in/memory gives 0 items"):
        flow_probe(InMemory([]))


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments):
    ran = CliRunner().invoke(app, ["evaluate", "flow", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "flow"
    make_tiny_net(flow_head=FLOW_HEAD).save_pretrained(folder)
    return folder


FEW_TEXTURES = ("--set", "textures.tiles=4", "--set", "textures.tile_size=64")
WORLDS = ("--dataset", "world", "--worlds", 2, "--world-size", "48x64", *FEW_TEXTURES)


def test_the_command_measures_a_checkpoint_and_peers_on_held_out_worlds(checkpoint, tmp_path):
    code, out, err = command(
        *WORLDS, "-m", checkpoint, "--peers", "zero,matching", "--tile", "32x32", "--overlap", 0.5, "-o", tmp_path
    )
    assert code == 0, err
    assert "world, 2 pairs" in out
    written = stored(tmp_path)["estimators"]
    assert list(written) == [str(checkpoint), "zero", "matching"]
    assert written[str(checkpoint)]["settings"]["tile"] == [32, 32]
    with Image.open(tmp_path / "pictures" / "000000_zero.png") as picture:
        assert picture.width == 5 * 400 + 4 * 8


def test_the_command_prints_one_json_document(checkpoint):
    code, out, err = command(*WORLDS, "-m", checkpoint, "--short-side", 32, "--json")
    assert code == 0, err
    estimators = json.loads(out)["estimators"]
    assert estimators[str(checkpoint)]["settings"]["short_side"] == 32
    assert "short_side" not in estimators["zero"]["settings"]


def test_worlds_are_those_of_a_recipe_where_one_is_named():
    recipe = ("--dataset", "world:flow_synthetic_small", "--worlds", 2, *FEW_TEXTURES, "--json")
    code, out, err = command(*recipe, "-s", "motion.background_shift=0", "--peers", "zero")
    assert code == 0, err
    measured = json.loads(out)
    assert measured["resolutions"] == {"32x32": 2}
    assert measured["estimators"]["zero"]["numbers"]["pooled"]["epe"] < 1e-6  # one plane, which alone moves there


def test_a_checkpoint_without_a_flow_head_still_serves_matching():
    code, out, err = command(*WORLDS, "-m", "midway_pico_untrained", "--peers", "matching", "--json")
    assert code == 0, err
    assert list(json.loads(out)["estimators"]) == ["matching"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "sintel/subval/clean"), "say where with --root FOLDER"),
        ((*WORLDS, "--world-size", "48"), "--world-size must be HEIGHTxWIDTH in pixels, such as 64x64; got '48'"),
        ((*WORLDS, "--world-size=-64x64"), "--world-size must be HEIGHTxWIDTH in pixels, such as 64x64; got '-64x64'"),
        (("--dataset", "world:midway_pico"), "midway_pico says nothing of worlds"),
        (("--dataset", "world:flow_synthetic_smal"), "did you mean flow_synthetic_small"),
        ((*WORLDS, "--peers", "raft"), "there is no peer 'raft'"),
        ((*WORLDS, "-m", "midway_pico_untrained"), "has no flow head"),
        ((*WORLDS, "--set", "noise=1"), "noise"),
        (("--dataset", "sintel/train/clean", "--root", ".", "--set", "noise"), "--set takes name=value, got 'noise'"),
        ((*WORLDS, "-m", "midway_pico_untrained", "--dtype", "int8"), "--dtype must be one of float32"),
    ],
)
def test_the_command_says_what_is_wrong_on_one_line(arguments, message):
    code, _, err = command(*arguments)
    assert code == 1
    assert message in " ".join(err.split())
