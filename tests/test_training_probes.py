import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from pydantic import ValidationError

from midway_hub import MidwayNetwork
from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD
from midway_hub.training.probes.coarse_flow import CoarseFlowProbe
from midway_hub.training.probes.dense import DenseProbe, LabelledFrames, patch_labels
from midway_hub.training.probes.held_out import HeldOutPairs, held_out_pairs
from midway_hub.training.probes.labelled_folder import read_labelled_folder
from midway_hub.training.probes.prediction import PredictionProbe, prediction_error
from midway_hub.training.probes.rank import RankProbe, effective_rank
from midway_hub.training.probes.readout import classification_scores, knn_predict, linear_predict
from midway_hub.training.probes.settings import ProbeSettings
from midway_hub.training.probes.suite import make_probes, run_probes

PAIRS = 3


def rendered(*, height: int = 64, width: int = 80, shift: int = 16) -> SimpleNamespace:
    """Noise that moves to the right by `shift` pixels; the left half of the first frame is class 0, the right 1."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randint(256, (PAIRS, 3, height, width + shift), generator=generator, dtype=torch.uint8)
    flow = torch.zeros(PAIRS, 2, height, width)
    flow[:, 0] = shift
    labels = torch.zeros(PAIRS, height, width, dtype=torch.uint8)
    labels[..., width // 2 :] = 1
    return SimpleNamespace(
        first=wide[..., shift:],
        second=wide[..., :width],
        flow=flow,
        occluded=torch.zeros(PAIRS, height, width, dtype=torch.bool),
        labels=labels,
    )


@pytest.fixture(scope="module")
def pairs() -> HeldOutPairs:
    return held_out_pairs(rendered())


class Pixels(MidwayNetwork):
    """A network whose teacher features are the pixels of each patch."""

    def encode(self, images, **options):
        features = super().encode(images, **options)
        patches = torch.nn.functional.pixel_unshuffle(images, self.config.patch_size)
        return SimpleNamespace(last=patches, cls=features.cls, layers=features.layers)


def pixel_network(**changes) -> MidwayNetwork:
    net = make_tiny_net(**changes)
    net.__class__ = Pixels
    return net


# -- held-out data -------------------------------------------------------------------------------------------------


def test_held_out_frames_are_normalised_and_cropped_around_their_centre():
    world = rendered(height=50, width=70)
    made = held_out_pairs(world, size=40)
    assert made.source.shape == (PAIRS, 3, 32, 32)
    assert made.flow.shape == (PAIRS, 2, 32, 32)
    expected = world.first[:, :, 9 + 5, 19 + 7].double() / 255
    expected = (expected - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(made.source[:, :, 5, 7].double(), expected, rtol=0, atol=1e-6)


def test_pixels_that_leave_the_crop_or_are_occluded_are_not_visible():
    world = rendered(height=32, width=48)
    world.occluded[:, :4] = True
    visible = held_out_pairs(world, size=32).visible
    assert not visible[:, :, 16:].any()
    assert not visible[:, :4].any()
    assert visible[:, 4:, :16].all()


def test_frames_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match=r"held-out frames of \(12, 80\) do not hold a patch of 16 pixels"):
        held_out_pairs(rendered(height=12))


def test_a_rendered_synthetic_world_can_be_probed():
    from midway_hub.training.data.synthetic import WorldSettings, held_out_seeds, render_pairs

    made = held_out_pairs(render_pairs(WorldSettings(size=(64, 64)), held_out_seeds(2)))
    assert made.source.shape == (2, 3, 64, 64)
    found = CoarseFlowProbe(made, perturbation_pairs=0)(make_tiny_net())
    assert found["coarse_flow/all/zero/epe"] > 0


# -- coarse flow ---------------------------------------------------------------------------------------------------


def test_matching_pixels_finds_the_motion_of_noise_exactly(pairs):
    found = CoarseFlowProbe(pairs, perturbation_pairs=1, draws=1, batch_size=2)(pixel_network())
    assert found["coarse_flow/all/zero/epe"] == pytest.approx(16)
    assert found["coarse_flow/all/matching/epe"] == 0
    assert found["coarse_flow/all/matching/epe_over_zero"] == 0
    assert found["coarse_flow/matching/hit_0.5"] == 1
    assert found["coarse_flow/zero/hit_0.5"] == 0


def test_every_level_has_its_own_coarse_flow_scores(pairs):
    found = CoarseFlowProbe(pairs, perturbation_pairs=2, draws=1)(make_tiny_net())
    for level in (8, 5, 2):
        for number in ("epe", "hit_0.5", "hit_1", "hit_2", "epe_over_zero"):
            assert math.isfinite(found[f"coarse_flow/level_{level}/{number}"])
        ratio = found[f"coarse_flow/level_{level}/epe"] / found["coarse_flow/zero/epe"]
        assert found[f"coarse_flow/level_{level}/epe_over_zero"] == pytest.approx(ratio)


def test_perturbation_peaks_that_follow_the_motion_score_zero_error(pairs):
    class MovesRight(torch.nn.Module):
        def predict(self, motion, source):
            grid = source[:, 1:].unflatten(1, (4, 5)).roll(1, dims=2)
            return torch.cat([source[:, :1], grid.flatten(1, 2)], dim=1)

    net = make_tiny_net()
    motions = [net.infer_motion(pair.source, pair.target) for pair in pairs.batches(1, torch.device("cpu"))]
    net.dynamics.levels["5"] = MovesRight()
    remembered = iter(motions)
    net.infer_motion = lambda source, target: next(remembered)
    found = CoarseFlowProbe(pairs, draws=2)(net)
    assert found["coarse_flow/level_5/epe"] == 0
    assert found["coarse_flow/level_5/hit_0.5"] == 1


# -- prediction ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_prediction_errors_agree_with_the_cosine_formula(pairs):
    net = make_tiny_net()
    found = PredictionProbe(pairs, batch_size=2)(net)
    motion = net.infer_motion(pairs.source, pairs.target)
    source, target = (
        net.encode(frames, layers=[8, 5, 2], output_format="tokens").layers for frames in (pairs.source, pairs.target)
    )
    other = net.infer_motion(pairs.source.roll(1, 0), pairs.target.roll(1, 0))
    guesses = {
        "error": motion.predicted,
        "trivial": source,
        "other_motion": net.predict(pairs.source, other),
        "other_source": net.predict(pairs.source.roll(1, 0), motion),
    }
    for index, level in enumerate((8, 5, 2)):
        for name, guess in guesses.items():
            cosines = [
                float(guess[index][b, n] @ target[index][b, n] / guess[index][b, n].norm() / target[index][b, n].norm())
                for b in range(PAIRS)
                for n in range(1, 21)
            ]
            assert found[f"prediction/level_{level}/{name}"] == pytest.approx(2 - 2 * np.mean(cosines), abs=1e-4)


def test_standing_still_predicts_a_world_that_stands_still():
    made = held_out_pairs(rendered(shift=0))
    assert PredictionProbe(made)(make_tiny_net())["prediction/level_2/trivial"] == pytest.approx(0, abs=1e-6)


def test_opposite_features_have_the_largest_prediction_error():
    features = torch.randn(2, 5, 8)
    assert prediction_error(-features, features).tolist() == pytest.approx([4, 4])


def test_a_network_without_dynamics_is_probed_for_what_it_has(pairs):
    net = make_tiny_net(dynamics=False)
    assert PredictionProbe(pairs)(net) == {}
    found = CoarseFlowProbe(pairs)(net)
    assert "coarse_flow/all/matching/epe" in found
    assert not any("level" in name for name in found)


# -- rank ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spectrum", "rank"), [([1, 1, 1, 1], 4), ([5, 0, 0, 0], 1), ([2, 2, 0, 0], 2), ([3, 1, 0, 0], 4 / 3**0.75)]
)
def test_the_effective_rank_of_known_spectra(spectrum, rank):
    left, _ = torch.linalg.qr(torch.randn(20, 4, dtype=torch.double))
    right, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.double))
    features = left @ torch.diag(torch.tensor(spectrum, dtype=torch.double)) @ right
    assert effective_rank(features) == pytest.approx(rank)


def test_features_that_are_all_alike_have_rank_one():
    features = torch.randn(8).expand(50, 8) + 1e-6 * torch.randn(50, 8)
    assert effective_rank(features) == pytest.approx(1, abs=1e-3)


def test_features_that_are_all_zero_have_rank_one():
    assert effective_rank(torch.zeros(5, 3)) == 1


def test_the_rank_of_cls_features_counts_both_frames(pairs):
    net = make_tiny_net()
    found = RankProbe(pairs, batch_size=2)(net)
    both = torch.cat([net.encode(pairs.source).cls, net.encode(pairs.target).cls])
    assert found["rank/cls"] == pytest.approx(effective_rank(both))
    assert 1 < found["rank/patches"] <= 48


# -- read-outs -----------------------------------------------------------------------------------------------------


def test_the_nearest_neighbours_vote_by_similarity():
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    test = torch.tensor([[5.0, 0.5], [0.2, 2.0], [-3.0, 0.1]])
    assert knn_predict(train, labels, test, k=1).tolist() == [0, 1, 2]
    assert knn_predict(train, labels, test, k=3).tolist() == [0, 1, 2]
    # one neighbour at cosine 1 outweighs two at cosine 0.8: exp(0 / 0.07) against 2 · exp(-0.2 / 0.07) = 0.11
    close = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    assert knn_predict(close, torch.tensor([1, 0, 0]), torch.tensor([[1.0, 0.0]]), k=3).tolist() == [1]


def test_more_neighbours_than_samples_are_all_of_them():
    assert knn_predict(torch.eye(2), torch.tensor([1, 1]), torch.eye(2), k=10).tolist() == [1, 1]


def test_the_linear_read_out_separates_what_is_separable():
    centres = torch.randn(4, 16)
    labels = torch.arange(4).repeat(50)
    features = 3 * centres[labels] + 0.3 * torch.randn(200, 16) + 100
    predicted = linear_predict(features[:100], labels[:100], features[100:])
    assert (predicted == labels[100:]).all()


def test_neither_read_out_finds_labels_that_are_not_there():
    features, labels = torch.randn(600, 16), torch.randint(4, (600,))
    for predict in (knn_predict, linear_predict):
        right = (predict(features[:300], labels[:300], features[300:]) == labels[300:]).float().mean()
        assert right < 0.4


def test_the_ridge_solution_minimises_its_objective():
    train, labels = torch.randn(30, 3, dtype=torch.double), torch.randint(2, (30,))
    inputs = (train - train.mean(0)) / train.std(0, correction=0)
    wanted = torch.nn.functional.one_hot(labels, 2).double()
    weight = torch.zeros(4, 2, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        error = (inputs @ weight[:3] + weight[3] - wanted).square().mean(0).sum() + 0.5 * weight[:3].square().sum()
        error.backward()
        return error

    optimizer.step(objective)
    test = torch.randn(500, 3, dtype=torch.double)
    scores = ((test - train.mean(0)) / train.std(0, correction=0)) @ weight[:3] + weight[3]
    assert linear_predict(train, labels, test, ridge=0.5).tolist() == scores.argmax(1).tolist()


def test_accuracy_and_mean_iou_are_those_computed_by_hand():
    scores = classification_scores(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0]), classes=4)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["miou"] == pytest.approx((1 / 3 + 2 / 4) / 2)  # classes 2 and 3 do not occur


def test_a_patch_has_the_class_of_most_of_its_labelled_pixels():
    labels = torch.tensor([[[0, 0, 255, 255], [2, 0, 255, 1], [255, 255, 1, 2], [255, 255, 2, 2]]])
    assert patch_labels(labels, 2).tolist() == [[[0, 1], [255, 2]]]


def test_frames_without_any_label_are_refused():
    with pytest.raises(ValueError, match="no pixel is labelled"):
        patch_labels(torch.full((1, 4, 4), 255), 2)


def test_the_dense_probe_reads_out_what_the_features_hold():
    labels = torch.randint(3, (8, 4, 5)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    frames = torch.stack([(labels == 0).float(), (labels == 1).float(), (labels == 2).float()], dim=1)
    found = DenseProbe(LabelledFrames(frames, labels), neighbours=3, batch_size=3)(pixel_network())
    assert found["dense/knn/accuracy"] == 1
    assert found["dense/linear/miou"] == 1
    assert found["dense/majority/accuracy"] < 0.6
    shuffled = LabelledFrames(frames, labels[torch.randperm(8)].flip(1))
    lost = DenseProbe(shuffled, neighbours=3)(pixel_network())
    assert lost["dense/linear/accuracy"] < 0.7


def test_one_labelled_frame_is_not_enough_to_train_and_test():
    with pytest.raises(ValueError, match="needs at least 2 labelled frames to train and test, got 1"):
        DenseProbe(LabelledFrames(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long)))


# -- labelled folders ----------------------------------------------------------------------------------------------


def labelled_folder(root, *, mode: str = "L", size: tuple[int, int] = (80, 48)):
    for name in ("images/city", "labels/city"):
        (root / name).mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (80, 48), (40 * index, 100, 200)).save(root / f"images/city/{index}.jpg")
        Image.new(mode, size, 3 + index if mode == "L" else None).save(root / f"labels/city/{index}.png")
    Image.new("RGB", (80, 48)).save(root / "images/unlabelled.jpg")
    return root / "images", root / "labels"


def test_images_are_read_with_the_label_maps_of_the_same_names(tmp_path):
    data = read_labelled_folder(*labelled_folder(tmp_path), size=40)
    assert data.frames.shape == (2, 3, 32, 32)
    assert [labels.unique().tolist() for labels in data.labels] == [[3], [4]]
    red = data.frames[:, 0].mean((1, 2)) * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    assert (red * 255).tolist() == pytest.approx([0, 40], abs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "RGB"}, r"is a colour picture \(mode RGB\), but one number per pixel is wanted"),
        ({"size": (40, 48)}, r"is \(40, 48\) pixels, its image \(80, 48\)"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_labelled_folder(*labelled_folder(tmp_path, **options))


def test_missing_folders_and_missing_labels_are_refused(tmp_path):
    images, _ = labelled_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        read_labelled_folder(images, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"none of the 3 images in .* has a label map"):
        read_labelled_folder(images, images)


# -- the suite -----------------------------------------------------------------------------------------------------


def test_only_the_probes_that_are_on_are_made(pairs):
    off = {"coarse_flow": False, "prediction": False, "dense": False, "rank": False}
    assert make_probes(ProbeSettings(**off), pairs) == {}
    for name in off:
        assert list(make_probes(ProbeSettings(**{**off, name: True}), pairs)) == [name]


def test_every_probe_returns_finite_numbers_named_after_it(pairs):
    probes = make_probes(ProbeSettings(worlds=2, perturbation_worlds=1, perturbation_draws=1), pairs)
    found = run_probes(probes, make_tiny_net())
    assert {name.split("/")[0] for name in found} == {"coarse_flow", "prediction", "dense", "rank"}
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert all(f"{name}/seconds" in found for name in probes)


def test_probes_give_the_same_numbers_again_and_leave_the_network_as_it_was(pairs):
    net = make_tiny_net(drop_path_rate=0.2).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    probes = make_probes(ProbeSettings(perturbation_worlds=1, perturbation_draws=1), pairs)
    state = torch.get_rng_state()
    first, again = run_probes(probes, net), run_probes(probes, net)
    assert net.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(parameter.grad is not None for parameter in net.parameters())
    differing = [name for name in first if first[name] != again[name] and not name.endswith("seconds")]
    assert differing == []


def test_labelled_folders_replace_the_worlds_in_the_dense_probe(pairs, tmp_path):
    images, labels = labelled_folder(tmp_path)
    settings = ProbeSettings(coarse_flow=False, prediction=False, rank=False, size=32, images=images, labels=labels)
    assert make_probes(settings, pairs)["dense"].data.labels.unique().tolist() == [3, 4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": "somewhere"}, "images and labels go together"),
        ({"worlds": 1}, "greater than or equal to 2"),
        ({"every": 10}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ProbeSettings(**values)
