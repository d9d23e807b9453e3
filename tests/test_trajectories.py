import math

import pytest
import torch
from conftest import make_tiny_net

from midway_hub.analysis.trajectories import motion_latents, motion_path, nearest_moments


def frames(count):
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(1))


# -- latents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 10])
def test_latents_are_those_of_every_pair_whatever_the_batch(batch):
    net, clip = make_tiny_net(), frames(6)
    found = [torch.cat(level) for level in zip(*motion_latents(net, iter(clip), batch=batch), strict=True)]
    expected = net.infer_motion(clip[:-1], clip[1:]).latents
    assert [level.shape for level in found] == [(5, 10, 24)] * 3
    for level, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-5)


def test_a_long_video_is_read_as_it_is_needed():
    taken = []

    def stream():
        for number, frame in enumerate(frames(6)):
            taken.append(number)
            yield frame

    next(motion_latents(make_tiny_net(), stream(), batch=2))
    assert taken == [0, 1, 2]


def test_one_frame_has_no_motion():
    assert list(motion_latents(make_tiny_net(), frames(1))) == []


# -- the path ----------------------------------------------------------------------------------------------------------


def test_latents_on_a_line_have_one_component_and_keep_their_order():
    amount = torch.tensor([0.0, 1.0, 5.0, 3.0])
    latents = torch.randn(2, 3) + amount[:, None, None] * torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 4.0]])
    path = motion_path(latents)
    torch.testing.assert_close(path.points[:, 0], 5 * (amount - amount.mean()).double(), rtol=1e-5, atol=1e-5)
    assert path.points[:, 1].abs().max() < 1e-5
    assert path.explained.tolist() == pytest.approx([1, 0], abs=1e-9)


def test_distances_are_root_mean_squares():
    latents = torch.randn(5, 3, 4)
    path = motion_path(latents)
    expected = (latents[1] - latents[4]).double().square().mean().sqrt()
    assert path.distances[1, 4].item() == pytest.approx(expected.item())
    assert path.distances.diagonal().abs().max() == 0
    torch.testing.assert_close(path.distances, path.distances.T)


def test_all_components_together_keep_all_distances():
    latents = torch.randn(4, 2, 6)
    path = motion_path(latents, components=3)
    between = torch.cdist(path.points, path.points) / math.sqrt(12)
    torch.testing.assert_close(between, path.distances, rtol=0, atol=1e-6)
    assert path.explained.sum().item() == pytest.approx(1)


def test_shares_of_the_variance_are_those_of_the_covariance():
    latents = torch.randn(30, 2, 2)
    values = torch.linalg.eigvalsh(torch.cov(latents.flatten(1).T.double())).flip(0)
    torch.testing.assert_close(motion_path(latents).explained, values[:2] / values.sum())


def test_two_moments_have_a_second_component_of_zero():
    path = motion_path(torch.randn(2, 2, 3))
    assert path.points.shape == (2, 2)
    assert path.points[:, 1].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(1, 2, 3), r"at least 2 moments, got \(1, 2, 3\)"),
        (torch.zeros(4, 6), r"\(T, M, Dm\) .* got \(4, 6\)"),
        (torch.full((3, 2, 2), torch.nan), "NaN or infinite"),
    ],
)
def test_latents_without_a_path_are_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        motion_path(latents)


# -- moments that move alike -------------------------------------------------------------------------------------------


def test_the_nearest_moments_are_far_enough_apart_in_time():
    positions = torch.tensor([0.0, 1.0, 10.0, 0.5])
    distances = (positions[:, None] - positions).abs()
    assert nearest_moments(distances)[:, 0].tolist() == [3, 3, 1, 0]
    assert nearest_moments(distances, apart=2)[:, 0].tolist() == [3, 3, 0, 0]
    assert nearest_moments(distances, count=2)[2].tolist() == [1, 3]


def test_moments_that_have_no_more_neighbours_say_so():
    distances = torch.ones(3, 3) - torch.eye(3)
    assert nearest_moments(distances, count=2, apart=2).tolist() == [[2, -1], [-1, -1], [0, -1]]


def test_distances_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"must be \(T, T\), got \(2, 3\)"):
        nearest_moments(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        nearest_moments(torch.zeros(2, 2), count=0)
