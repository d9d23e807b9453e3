"""Motion read off dynamics against ground truth: what counts, what is summed, what is written."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from evaluation_sets import InMemory, flow_sample, shifted_pairs
from PIL import Image
from typer.testing import CliRunner

from midway_hub.analysis.gates import without_gates
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.models.dynamics import DynamicsLevel
from midway_hub.processing import MidwayImageProcessor
from midway_hub.training.__main__ import app
from midway_hub.training.data.flow import build_flow_dataset
from midway_hub.training.evaluation.dynamics.evaluate import evaluate_dynamics
from midway_hub.training.evaluation.dynamics.pictures import PatchPicture, coarse_strip
from midway_hub.training.evaluation.dynamics.readings import Matching, Perturbation, Reading, StandStill
from midway_hub.training.evaluation.dynamics.scores import half_weights, patch_sums, pooled
from midway_hub.training.evaluation.dynamics.tables import dynamics_tables, region_table, score_table
from midway_hub.training.evaluation.dynamics.truth import PatchTruth, patch_truth
from midway_hub.training.evaluation.records import RecordMismatchError

GRID, SIZE = (3, 4), (48, 64)
NARROW = {"embed_dim": 16, "num_heads": 2, "backward_heads": 2, "predictor_heads": 2}


class Permuting(DynamicsLevel):
    """A level that moves every patch two columns on, around the edge: the same both ways on a grid of four columns."""

    def predict(self, motion, source):
        patches = source[:, 1:].unflatten(1, GRID).roll(2, 2).flatten(1, 2)
        return torch.cat([source[:, :1], patches], dim=1)


def permuting_net():
    net = make_tiny_net(**NARROW)
    for level in net.dynamics.levels.values():
        level.__class__ = Permuting
    return net


def permuted_pair(name="permuted", **options):
    """The pair that goes with it: the left half moves 32 pixels right, the right half 32 left."""
    flow = np.zeros((*SIZE, 2))
    flow[:, :32, 0], flow[:, 32:, 0] = 32, -32
    return flow_sample(flow, name=name, **options)


class Fixed:
    """Reads the same flow from every pair, counts how often, and can break down at a pair."""

    patch_size, model = 16, "fixed"

    def __init__(self, flow=(0, 0), *, name="fixed", breaks_at=None, **settings):
        self.flow, self.name = flow, name
        self.settings = {"kind": "fixed", "flow": list(flow), **settings}
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, source, target):
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        grid = [side // 16 for side in source.shape[-2:]]
        return {"peak": Reading(torch.tensor(self.flow).float()[:, None, None].expand(2, *grid), torch.ones(*grid))}


def truth_of(sample, **processor):
    inputs = MidwayImageProcessor(**processor)([sample.first, sample.second])
    return patch_truth(sample, inputs.geometry, patch_size=16)


def scores_of(dataset, *readers, **options):
    return evaluate_dynamics(dataset, readers, **options).readers


# -- a predictor that is a known permutation ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["level 8, peak", "level 5, peak", "level 2, peak", "level 2, soft"])
def test_a_predictor_that_permutes_patches_as_the_pair_does_has_no_error(way):
    reader = Perturbation(permuting_net(), draws=2)
    found = scores_of(InMemory([permuted_pair()]), reader)["network: gates on"].ways[way]
    for region in ("all", "confident", "moving"):
        assert found[region].epe == pytest.approx(0, abs=1e-5)
        assert found[region].hits == {"hit_0.5": 100, "hit_1": 100, "hit_2": 100}
    assert (found["all"].patches, found["confident"].patches, found["moving"].patches) == (12, 6, 12)


def test_a_permutation_that_is_its_own_inverse_is_fully_confident():
    frames = torch.randn(2, 1, 3, *SIZE)
    reading = Perturbation(permuting_net(), draws=2)(*frames)["level 5, peak"]
    torch.testing.assert_close(reading.confidence, torch.ones(GRID))


def test_zero_motion_errs_by_the_length_of_the_motion():
    found = scores_of(InMemory([permuted_pair()]), StandStill())["zero"].ways["-"]["all"]
    assert found.epe == pytest.approx(32)
    assert found.hits == {"hit_0.5": 0, "hit_1": 0, "hit_2": 100}


def test_matching_finds_patches_that_moved_by_whole_patches():
    """Features of an encoder without blocks and positions depend on nothing but the patch."""
    net = make_tiny_net(**NARROW)
    for encoder in (net.student, net.teacher):
        encoder.blocks = torch.nn.ModuleList()
        with torch.no_grad():
            encoder.pos_embed.zero_()
        encoder.tokens = lambda images, layers, encoder=encoder: tuple(
            encoder.norm(encoder._pos_embed(encoder.patch_embed(images))) for _ in layers
        )
    source = torch.randn(1, 3, *SIZE)
    readings = Matching(net)(source, source.roll(32, 3))
    sums = patch_sums(readings["peak"], truth_of(permuted_pair()), patch_size=16)
    assert pooled([sums])["all"].epe == 0
    assert readings["peak"].confidence.min() == 1


# -- gates -------------------------------------------------------------------------------------------------------------


def test_without_gates_heatmaps_equal_those_of_a_config_without_gating_and_the_same_weights():
    net, plain = make_tiny_net(**NARROW), make_tiny_net(**NARROW, gating=False)
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if ".gates." not in key})
    frames = torch.randn(2, 1, 3, *SIZE)
    ungated, gated = without_gates(net), {}
    for level in (8, 5, 2):
        found, expected, gated[level] = (
            perturbation_heatmaps(each, each.infer_motion(*frames), level=level, draws=2)
            for each in (ungated, plain, net)
        )
        torch.testing.assert_close(found, expected)
    assert (gated[2] - found).abs().max() > 1e-3


def test_every_gate_at_one_is_what_without_gates_computes():
    net = make_tiny_net(**NARROW).double()
    frames = torch.randn(2, 1, 3, *SIZE, dtype=torch.double)
    ungated = without_gates(net).infer_motion(*frames)
    for level in net.dynamics.levels.values():
        for gate in level.gates:
            gate.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    for found, expected in zip(ungated.predicted, net.infer_motion(*frames).predicted, strict=True):
        torch.testing.assert_close(found, expected)


def test_removing_gates_leaves_the_network_as_it_was_and_copies_no_weights():
    net = make_tiny_net(**NARROW)
    ungated = without_gates(net)
    assert net.config.gating
    assert not ungated.config.gating
    assert not any(".gates." in key for key in ungated.state_dict())
    assert ungated.student.pos_embed.data_ptr() == net.student.pos_embed.data_ptr()
    assert net.student.pos_embed.requires_grad
    assert not ungated.training


def test_an_encoder_alone_has_no_gates():
    with pytest.raises(ValueError, match="encoder alone"):
        without_gates(make_tiny_net(**NARROW, dynamics=False))
    with pytest.raises(ValueError, match="only its features can be matched"):
        Perturbation(make_tiny_net(**NARROW, dynamics=False))


def test_gates_that_are_not_there_cannot_be_on():
    with pytest.raises(ValueError, match="has no gating units that could be on; measure it with gates off"):
        Perturbation(make_tiny_net(**NARROW, gating=False))
    assert Perturbation(make_tiny_net(**NARROW, gating=False), gates=False).settings["gates"] == "none"


# -- the truth at patches ----------------------------------------------------------------------------------------------


def test_occluded_invalid_and_leaving_patches_never_count():
    flow, valid, occluded = np.zeros((48, 64, 2)), np.ones(SIZE, bool), np.zeros(SIZE, bool)
    flow[:16, 48:, 0] = 9  # the centre of the last patch of the first row leaves the frame
    flow[:16, 32:48, 0] = 9
    valid[16 + 7, 7], occluded[16 + 8, 16 + 8] = False, True  # one of four pixels at a centre is enough
    occluded[32:, :4] = True  # beside the centre
    truth = truth_of(flow_sample(flow, valid=valid, occluded=occluded))
    expected = torch.ones(GRID, dtype=torch.bool)
    expected[0, 3] = expected[1, 0] = expected[1, 1] = False
    assert truth.counts.tolist() == expected.tolist()
    assert truth.flow[0, 0].tolist() == [0, 0, 9, 0]


def test_unknown_flow_may_be_anything():
    flow, valid = np.zeros((16, 32, 2)), np.ones((16, 32), bool)
    valid[:, :16], flow[:, :16] = False, np.nan
    truth = truth_of(flow_sample(flow, valid=valid))
    assert truth.counts.tolist() == [[False, True]]
    assert truth.flow.isfinite().all()


def test_patches_that_are_padded_over_their_centre_do_not_count():
    truth = truth_of(flow_sample(np.zeros((16 + 8, 16 + 9, 2))))
    assert truth.counts.tolist() == [[True, True], [False, False]]


def test_the_finer_truth_of_spring_is_read_at_the_same_centres():
    flow = np.random.default_rng(0).normal(0, 1, (64, 96, 2)).astype(np.float32)
    truth = truth_of(flow_sample(flow, scale=2))
    centre = flow[32 + 15 : 32 + 17, 64 + 15 : 64 + 17].astype(float).mean(axis=(0, 1))
    assert truth.flow.shape == (2, 2, 3)
    assert truth.flow[:, 1, 2].tolist() == pytest.approx(centre.tolist())


def test_on_resized_frames_displacements_are_the_models_and_errors_the_frames():
    sample = flow_sample(np.full((96, 128, 2), (8, -4)))
    truth = truth_of(sample, fit="shortest", size=48)
    assert truth.flow.shape == (2, *GRID)
    assert truth.flow[:, 1, 1].tolist() == [4, -2]
    assert truth.scale.tolist() == [2, 2]
    sums = patch_sums(Reading(torch.zeros(2, *GRID), torch.ones(GRID)), truth, patch_size=16)
    assert pooled([sums])["all"].epe == pytest.approx(math.hypot(8, 4))


# -- scores ------------------------------------------------------------------------------------------------------------


def test_the_confident_half_is_that_of_highest_confidence():
    assert half_weights(torch.tensor([0.1, 0.9, 0.5, 0.7])).tolist() == [0, 1, 0, 1]
    assert half_weights(torch.tensor([0.1, 0.9, 0.5])).tolist() == [0, 1, 0.5]


def test_equally_sure_patches_on_the_edge_of_the_half_share_alike():
    weights = half_weights(torch.tensor([1.0, 0.5, 0.5, 0.5001, 0.2, 0.1]))
    assert weights.tolist() == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 0, 0])
    assert half_weights(torch.ones(7)).sum().item() == pytest.approx(3.5)
    assert half_weights(torch.ones(0)).tolist() == []


def test_scores_are_those_computed_by_hand():
    flow = torch.tensor([[[0.0, 3.0, 20.0, 40.0]], [[0.0, 4.0, 0.0, 0.0]]])
    truth = PatchTruth(torch.zeros(2, 1, 4).double(), torch.tensor([[True, True, True, True]]), torch.ones(2).double())
    truth.flow[0, 0, 3] = 10.0
    confidence = torch.tensor([[0.9, 0.1, 0.2, 0.8]])
    found = pooled([patch_sums(Reading(flow, confidence), truth, patch_size=16)])
    assert found["all"].epe == pytest.approx((0 + 5 + 20 + 30) / 4)
    assert found["all"].hits == {"hit_0.5": 50, "hit_1": 50, "hit_2": 100}
    assert found["confident"].epe == pytest.approx((0 + 30) / 2)
    assert (found["moving"].epe, found["moving"].patches) == (30, 1)


def test_all_patches_of_all_pairs_count_alike():
    pairs = [flow_sample(np.full((16, 16, 2), (3, 4))), flow_sample(np.zeros((16, 48, 2)))]
    assert scores_of(InMemory(pairs), StandStill())["zero"].ways["-"]["all"].epe == pytest.approx(5 / 4)


def test_a_reading_with_nan_or_of_another_grid_is_refused():
    truth = truth_of(permuted_pair())
    with pytest.raises(ValueError, match="a coarse flow holds 24 values that are NaN or infinite"):
        patch_sums(Reading(torch.full((2, *GRID), torch.nan), torch.ones(GRID)), truth, patch_size=16)
    with pytest.raises(ValueError, match=r"\(2, 3, 5\) for a truth of \(2, 3, 4\)"):
        patch_sums(Reading(torch.zeros(2, 3, 5), torch.ones(3, 5)), truth, patch_size=16)


# -- what is written ---------------------------------------------------------------------------------------------------


def pairs(count=4):
    return InMemory(shifted_pairs(count))


def test_results_hold_every_way_region_and_setting(tmp_path):
    net = make_tiny_net(**NARROW)
    readers = [Perturbation(net, draws=2, seed=5), Perturbation(net, gates=False, draws=2), Matching(net), StandStill()]
    evaluate_dynamics(InMemory([permuted_pair()]), readers, out=tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert list(stored["readers"]) == ["network: gates on", "network: gates off", "network: matching", "zero"]
    gated = stored["readers"]["network: gates on"]
    assert list(gated["ways"]) == [f"level {level}, {rule}" for level in (8, 5, 2) for rule in ("peak", "soft")]
    assert list(gated["ways"]["level 2, peak"]) == ["all", "confident", "moving"]
    assert (gated["settings"]["draws"], gated["settings"]["seed"], gated["settings"]["gates"]) == (2, 5, "on")
    assert len(gated["settings"]["sha256"]) == 64
    assert gated["settings"]["sha256"] == stored["readers"]["network: gates off"]["settings"]["sha256"]
    assert stored["protocol"]["task"] == "dynamics"


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate_dynamics(pairs(), [Fixed((1, 1), breaks_at=2)], out=tmp_path, pictures=0)
    assert not (tmp_path / "results.json").exists()
    again, data = Fixed((1, 1)), pairs()
    result = evaluate_dynamics(data, [again], out=tmp_path, pictures=0)
    assert again.calls == 2
    assert data.reads == [0, 0, 1, 1]
    whole = scores_of(pairs(), Fixed((1, 1)))["fixed"].ways["peak"]
    assert result.readers["fixed"].ways["peak"]["all"] == whole["all"]


def test_other_settings_in_the_folder_are_refused_with_the_difference(tmp_path):
    evaluate_dynamics(pairs(1), [Fixed(draws=8)], out=tmp_path)
    with pytest.raises(RecordMismatchError, match=r"fixed\.draws: 8 in the folder, 16 now"):
        evaluate_dynamics(pairs(1), [Fixed(draws=16)], out=tmp_path)
    with pytest.raises(RecordMismatchError, match=r"protocol\.short_side: None in the folder, 32 now"):
        evaluate_dynamics(pairs(1), [Fixed(draws=8)], out=tmp_path, short_side=32)


def test_pictures_are_drawn_of_some_pairs(tmp_path):
    evaluate_dynamics(pairs(), [Fixed(), StandStill()], out=tmp_path, pictures=2)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["000000_fixed.png", "000000_zero.png", "000002_fixed.png", "000002_zero.png"]


def test_a_picture_shows_truth_and_reading_in_the_same_colours_and_what_does_not_count_grey():
    valid = np.ones(SIZE, bool)
    valid[:16, :16] = False
    sample = permuted_pair(valid=valid)
    inputs = MidwayImageProcessor()([sample.first, sample.second])
    truth = patch_truth(sample, inputs.geometry, patch_size=16)
    exact = torch.from_numpy(permuted_pair().flow[8::16, 8::16]).movedim(-1, 0)
    reading = Reading(exact, torch.ones(GRID))
    drawn = np.asarray(coarse_strip(PatchPicture(sample, truth, inputs.geometry, 16), {"peak": reading}, width=64))
    true, read = drawn[26:74, 144:208], drawn[26:74, 216:280]
    assert (true[1:16, 1:16] == 128).all()
    np.testing.assert_array_equal(true[16:], read[16:])
    assert (read[20, 4] != read[20, 60]).any()


def test_tables_have_a_row_per_way_and_name_gates_and_levels():
    net = make_tiny_net(**NARROW)
    readers = [Perturbation(net, gates=gates, draws=1) for gates in (True, False)]
    result = evaluate_dynamics(InMemory([permuted_pair()]), [*readers, Matching(net), StandStill()])
    labels = [row[0] for row in score_table(result).rows]
    assert labels[:2] == ["level 8 peak, gates on", "level 8 soft, gates on"]
    assert labels[10:] == ["level 2 peak, gates off", "level 2 soft, gates off", *LAST_LABELS]
    assert score_table(result).rows[-1][1:6] == ["32.00", "1.00", "0.00", "0.00", "100.00"]
    assert "occlusions unknown" in score_table(result).title
    assert [len(row) == len(table.header) for table in dynamics_tables(result) for row in table.rows] == [True] * 30


LAST_LABELS = ["features peak", "features soft", "zero motion"]


def test_tables_name_networks_where_there_are_several_and_dash_what_does_not_count():
    nothing = flow_sample(np.zeros((*SIZE, 2)), valid=np.zeros(SIZE, bool))
    net = make_tiny_net(**NARROW)
    result = evaluate_dynamics(InMemory([nothing]), [Matching(net, model="a"), Matching(net, model="b"), StandStill()])
    assert [row[0] for row in region_table(result).rows][::2] == ["a: features peak", "b: features peak", "zero motion"]
    assert score_table(result).rows[0][1:3] == ["-", "-"]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="nothing to measure"):
        evaluate_dynamics(pairs(1), [])
    with pytest.raises(ValueError, match="two readers are called 'zero'"):
        evaluate_dynamics(pairs(1), [StandStill(), StandStill()])


def test_progress_counts_pairs():
    seen = []
    evaluate_dynamics(pairs(2), [StandStill()], progress=lambda *at: seen.append(at))
    assert seen == [("pairs", 0, 2), ("pairs", 1, 2), ("pairs", 2, 2)]


# -- on files, and the command -----------------------------------------------------------------------------------------


@pytest.fixture
def chairs(shared, tmp_path):
    """The two real pairs of FlyingChairs, laid out as the data set is."""
    root = tmp_path / "chairs"
    (root / "data").mkdir(parents=True)
    for folder in ("chairs_0", "chairs_1"):
        for file in (shared / "data" / "flow" / folder).glob("0000*"):
            (root / "data" / file.name).symlink_to(file)
    (root / "FlyingChairs_train_val.txt").write_text("1\n1\n")
    return root


def test_on_real_chairs_zero_motion_errs_by_the_length_of_the_flow_at_patch_centres_that_stay(chairs):
    lengths = []
    for file in sorted((chairs / "data").glob("*.flo")):
        flow = np.fromfile(file, np.float32, offset=12).reshape(384, 512, 2).astype(float)
        x, y = np.arange(512) + 0.5 + flow[..., 0], np.arange(384)[:, None] + 0.5 + flow[..., 1]
        stays = (x >= 0) & (x < 512) & (y >= 0) & (y < 384)
        for row in range(8, 384, 16):
            for column in range(8, 512, 16):
                centre = np.s_[row - 1 : row + 1, column - 1 : column + 1]
                if stays[centre].all():
                    lengths.append(np.hypot(*flow[centre].mean(axis=(0, 1))))
    found = scores_of(build_flow_dataset("chairs/train", chairs), StandStill())["zero"].ways["-"]["all"]
    assert found.patches == len(lengths) < 2 * 24 * 32
    assert found.epe == pytest.approx(np.mean(lengths), rel=1e-9)
    assert found.hits["hit_1"] == pytest.approx(100 * np.mean(np.array(lengths) <= 16), rel=1e-9)


def command(*arguments):
    ran = CliRunner().invoke(app, ["evaluate", "dynamics", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "dynamics"
    make_tiny_net(**NARROW).save_pretrained(folder)
    return folder


FEW_TEXTURES = ("--set", "textures.tiles=4", "--set", "textures.tile_size=64")
WORLDS = ("--dataset", "world", "--worlds", 2, "--world-size", "48x64", *FEW_TEXTURES)


def test_the_command_measures_levels_gates_and_features_on_held_out_worlds(checkpoint, tmp_path):
    code, out, err = command(*WORLDS, "-m", checkpoint, "--draws", 2, "--pictures", 1, "-o", tmp_path)
    assert code == 0, err
    assert "world, 2 pairs" in out
    assert "level 2 peak, gates off" in out
    stored = json.loads((tmp_path / "results.json").read_text())
    assert list(stored["readers"]) == [
        *(f"{checkpoint}: {what}" for what in ("gates on", "gates off", "matching")),
        "zero",
    ]
    assert stored["occlusions"]
    assert len(list((tmp_path / "pictures").iterdir())) == 4
    (file,) = (tmp_path / "pictures").glob("*gates_on.png")
    with Image.open(file) as picture:
        assert picture.width == 7 * 300 + 6 * 8  # two frames, truth, three levels, wheel


def test_the_command_reads_a_data_set_from_files_and_prints_one_json_document(checkpoint, chairs):
    code, out, err = command(
        *("--dataset", "chairs/train", "--root", chairs, "-m", checkpoint, "--limit", 1),
        *("--draws", 1, "--gates", "on", "--short-side", 64, "--json"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["pairs"], found["of"], found["short_side"], found["occlusions"]) == (1, 2, 64, False)
    assert list(found["readers"]) == [f"{checkpoint}: gates on", f"{checkpoint}: matching", "zero"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "sintel/subval/clean", "-m", "x"), "say where with --root FOLDER"),
        ((*WORLDS, "-m", "x", "--gates", "half"), "--gates must be on, off, or on,off; got 'half'"),
        ((*WORLDS, "-m", "x", "--draws", "0"), "--draws must be at least 1, got 0"),
    ],
)
def test_the_command_says_what_is_wrong_on_one_line(arguments, message):
    code, _, err = command(*arguments)
    assert code == 1
    assert message in " ".join(err.split())


def test_a_network_without_gating_units_is_measured_as_it_is(tmp_path):
    make_tiny_net(**NARROW, gating=False).save_pretrained(tmp_path / "plain")
    code, out, err = command(*WORLDS, "-m", tmp_path / "plain", "--draws", 1, "--limit", 1, "--json")
    assert code == 0, err
    assert "has no gating units" in " ".join(err.split())
    assert json.loads(out)["readers"][f"{tmp_path / 'plain'}: gates off"]["settings"]["gates"] == "none"
