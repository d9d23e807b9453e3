import math

import pytest
import torch

from midway_hub.analysis.coarse_flow import coarse_flow, forward_backward_confidence, zero_motion
from midway_hub.analysis.flow_scores import flow_scores, truth_at_patches
from midway_hub.analysis.matching import matching_heatmaps


def heatmaps_to(places: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Heatmaps (N, h, w) that are 1 at `places[i]` for source patch i and 0 elsewhere."""
    return torch.nn.functional.one_hot(places, grid[0] * grid[1]).float().unflatten(1, grid)


# -- from heatmaps to flow -----------------------------------------------------------------------------------------


def test_the_peak_of_a_heatmap_is_where_its_patch_went():
    places = torch.tensor([4, 1, 2, 3, 4, 0])  # patch 0, row 0, column 0, goes to row 1, column 1; 5 to 0
    flow = coarse_flow(heatmaps_to(places, (2, 3)), patch_size=8)
    assert flow.shape == (2, 2, 3)
    assert flow[:, 0, 0].tolist() == [8, 8]
    assert flow[:, 1, 2].tolist() == [-16, -8]
    assert flow[:, 0, 1].tolist() == [0, 0]


def test_leading_axes_are_kept():
    heatmaps = torch.rand(2, 3, 6, 2, 3)
    flow = coarse_flow(heatmaps)
    assert flow.shape == (2, 3, 2, 2, 3)
    torch.testing.assert_close(flow[1, 2], coarse_flow(heatmaps[1, 2]))
    assert zero_motion(heatmaps).shape == flow.shape
    assert not zero_motion(heatmaps).any()


def test_the_soft_peak_is_the_weighted_mean_of_positions():
    heatmaps = torch.zeros(3, 1, 3)
    heatmaps[0, 0] = torch.tensor([0.0, math.log(3.0), 0.0]) / 10
    flow = coarse_flow(heatmaps, rule="soft", temperature=0.1, radius=None)
    # patch 0: weights 1, 3, 1 over columns 0, 1, 2: mean column 1; patches 1 and 2: all alike, mean column 1 too
    torch.testing.assert_close(flow[0, 0], torch.tensor([16.0, 0.0, -16.0]), rtol=0, atol=1e-4)
    assert flow[1].abs().max() == 0


def test_the_soft_peak_looks_no_further_than_its_radius():
    heatmaps = torch.zeros(5, 1, 5)
    heatmaps[0, 0] = torch.tensor([0.0, 0.0, 0.0, math.log(2.0), math.log(6.0)])
    near = coarse_flow(heatmaps, rule="soft", temperature=1.0, radius=1)[0, 0, 0]
    assert near.item() == pytest.approx(16 * (3 * 2 + 4 * 6) / 8)
    far = coarse_flow(heatmaps, rule="soft", temperature=1.0, radius=None)[0, 0, 0]
    assert far.item() == pytest.approx(16 * (0 + 1 + 2 + 3 * 2 + 4 * 6) / 11)


def test_the_soft_peak_tends_to_the_peak_as_the_temperature_falls():
    heatmaps = torch.rand(12, 3, 4)
    soft = coarse_flow(heatmaps, rule="soft", temperature=1e-4, radius=None)
    torch.testing.assert_close(soft, coarse_flow(heatmaps), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("heatmaps", "arguments", "message"),
    [
        (torch.zeros(5, 2, 3), {}, r"those of all patches, \(..., h·w, h, w\), got \(5, 2, 3\)"),
        (torch.full((6, 2, 3), torch.nan), {}, "a heatmap holds 36 values that are NaN or infinite"),
        (torch.zeros(6, 2, 3), {"rule": "mean"}, "rule must be 'peak' or 'soft', got 'mean'"),
        (torch.zeros(6, 2, 3), {"temperature": 0.0}, "temperature must be above 0"),
        (torch.zeros(6, 2, 3), {"radius": -1}, "radius at least 0, got 0.05 and -1"),
    ],
)
def test_heatmaps_without_a_flow_are_refused(heatmaps, arguments, message):
    with pytest.raises(ValueError, match=message):
        coarse_flow(heatmaps, **arguments)


# -- forward and backward ------------------------------------------------------------------------------------------


def test_flow_that_returns_to_its_start_is_fully_confident():
    forward = torch.zeros(2, 3, 4)
    forward[0, :, :3], forward[0, :, 3] = 16, -48  # every row turns by one patch
    backward = torch.zeros(2, 3, 4)
    backward[0, :, 1:], backward[0, :, 0] = -16, 48
    torch.testing.assert_close(forward_backward_confidence(forward, backward), torch.ones(3, 4))


def test_confidence_falls_with_the_distance_missed():
    forward = torch.zeros(2, 1, 3)
    forward[0, 0, 0] = 16  # to patch 1, whose backward flow leads 24 pixels left: 8 pixels past the start
    backward = torch.zeros(2, 1, 3)
    backward[0, 0, 1] = -24
    confidence = forward_backward_confidence(forward, backward)
    expected = [math.exp(-8 / 16), math.exp(-24 / 16), 1.0]
    assert confidence[0].tolist() == pytest.approx(expected)


def test_the_backward_flow_is_read_between_patches():
    forward = torch.zeros(2, 1, 2)
    forward[0, 0, 0] = 8  # half way between the two patches, where the backward flow is the mean of -4 and -12
    backward = torch.tensor([[[-4.0, -12.0]], [[0.0, 0.0]]])
    assert forward_backward_confidence(forward, backward)[0, 0].item() == pytest.approx(1)


def test_flow_out_of_the_frame_has_no_confidence():
    forward = torch.zeros(1, 2, 2, 2)
    forward[0, 1, 1, 0] = 16
    confidence = forward_backward_confidence(forward, torch.zeros_like(forward))
    assert confidence.tolist() == [[[1, 1], [0, 1]]]


def test_flows_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(..., 2, h, w\), got \(2, 3, 4\) and \(2, 4, 3\)"):
        forward_backward_confidence(torch.zeros(2, 3, 4), torch.zeros(2, 4, 3))


# -- matching ------------------------------------------------------------------------------------------------------


def test_matching_finds_permuted_features_exactly():
    source = torch.randn(2, 16, 3, 4)
    places = torch.randperm(12)
    target = torch.zeros_like(source).flatten(2).index_copy(2, places, source.flatten(2)).unflatten(2, (3, 4))
    heatmaps = matching_heatmaps(source, 5 * target)
    assert heatmaps.shape == (2, 12, 3, 4)
    assert heatmaps.flatten(2).argmax(2).tolist() == [places.tolist()] * 2
    assert heatmaps.amax((2, 3)).sub(1).abs().max() < 1e-5
    torch.testing.assert_close(coarse_flow(heatmaps)[0], coarse_flow(heatmaps_to(places, (3, 4))))


def test_matching_scores_are_cosines():
    source, target = torch.randn(1, 5, 1, 2), torch.randn(1, 5, 1, 2)
    expected = torch.cosine_similarity(source[0, :, 0, 1], target[0, :, 0, 0], dim=0)
    torch.testing.assert_close(matching_heatmaps(source, target)[0, 1, 0, 0], expected)


def test_features_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(..., D, h, w\), got \(8, 3, 4\) and \(8, 3, 5\)"):
        matching_heatmaps(torch.zeros(8, 3, 4), torch.zeros(8, 3, 5))


# -- scores --------------------------------------------------------------------------------------------------------


def test_scores_are_those_computed_by_hand():
    flow = torch.zeros(1, 2, 1, 4)
    truth = torch.zeros(1, 2, 4, 16)
    truth[0, 0, :, 4:8] = 2  # half a patch of 4 pixels off
    truth[0, :, :, 8:12] = torch.tensor([3.0, -4.0])[:, None, None]  # 5 pixels off
    truth[0, 1, :, 12:] = 100
    scores = flow_scores(flow, truth, patch_size=4)
    assert scores.epe == pytest.approx((0 + 2 + 5 + 100) / 4)
    assert scores.hits == {0.5: 0.5, 1.0: 0.5, 2.0: 0.75}
    assert scores.patches == 4
    assert scores.as_dict("a/") == {"a/epe": scores.epe, "a/hit_0.5": 0.5, "a/hit_1": 0.5, "a/hit_2": 0.75}


def test_invalid_patches_do_not_count():
    truth = torch.zeros(1, 2, 4, 12)
    truth[..., 4:8] = torch.nan
    valid = torch.ones(1, 4, 12, dtype=torch.bool)
    valid[..., 8:] = False
    scores = flow_scores(torch.ones(1, 2, 1, 3), truth, valid=valid, patch_size=4)
    assert scores.patches == 1
    assert scores.epe == pytest.approx(2**0.5)


def test_scores_of_no_patch_are_not_a_number():
    scores = flow_scores(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 4, 4), torch.nan), patch_size=4)
    assert scores.patches == 0
    assert math.isnan(scores.epe)
    assert math.isnan(scores.hits[1.0])


def test_the_truth_at_a_centre_is_the_mean_of_the_four_pixels_there():
    truth = torch.zeros(1, 2, 4, 4)
    truth[0, 0, 1:3, 1:3] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    sampled, counts = truth_at_patches(truth, patch_size=4)
    assert sampled.flatten().tolist() == [3, 0]
    assert counts.all()
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 2, 2] = False
    assert not truth_at_patches(truth, valid=valid, patch_size=4)[1].any()


def test_the_truth_at_the_centre_of_an_odd_patch_is_one_pixel():
    truth = torch.arange(9.0).reshape(1, 1, 3, 3).repeat(1, 2, 1, 1)
    assert truth_at_patches(truth, patch_size=3)[0].flatten().tolist() == [4, 4]


def test_the_truth_over_a_patch_is_the_mean_of_its_valid_pixels_if_they_are_half_of_it():
    truth = torch.zeros(1, 2, 2, 4)
    truth[0, 0] = torch.tensor([[1.0, 3.0, 8.0, 9.0], [7.0, 7.0, 9.0, 9.0]])
    valid = torch.tensor([[[True, True, True, False], [False, False, False, False]]])
    sampled, counts = truth_at_patches(truth, valid=valid, patch_size=2, over="patch")
    assert counts.tolist() == [[[True, False]]]
    assert sampled[0, 0].tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("truth", "arguments", "message"),
    [
        (torch.zeros(1, 2, 30, 32), {}, r"H and W multiples of 16, got \(1, 2, 30, 32\)"),
        (torch.zeros(1, 2, 32, 32), {"over": "corner"}, "over must be 'centre' or 'patch', got 'corner'"),
        (torch.zeros(1, 2, 32, 32), {"valid": torch.ones(32, 32)}, r"valid must be \(1, 32, 32\), got \(32, 32\)"),
    ],
)
def test_truth_that_does_not_fit_is_refused(truth, arguments, message):
    with pytest.raises(ValueError, match=message):
        truth_at_patches(truth, **arguments)


def test_flow_of_another_grid_than_the_truth_is_refused():
    with pytest.raises(ValueError, match=r"flow must be \(1, 2, 2, 2\) .* patches of 16 pixels, got \(1, 2, 2, 3\)"):
        flow_scores(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 32, 32))
