import pytest
import torch

from midway_hub.analysis.pca import PcaBasis, pca_colours


def test_equal_features_get_equal_colours_throughout_a_clip():
    features = torch.randn(1, 8, 4, 5)
    colours = pca_colours(torch.cat([features, features.flip(3)]))
    torch.testing.assert_close(colours[0], colours[1].flip(1), rtol=0, atol=1e-5)


def test_the_first_colour_is_the_direction_of_largest_variance():
    direction = torch.nn.functional.normalize(torch.randn(8), dim=0)
    amount = torch.linspace(-1, 1, 30).reshape(1, 1, 5, 6)
    features = 10 * direction.reshape(1, 8, 1, 1) * amount + 0.01 * torch.randn(1, 8, 5, 6)
    red = pca_colours(features)[0, :, :, 0].flatten()
    correlation = torch.corrcoef(torch.stack([red, amount.flatten()]))[0, 1]
    assert correlation.abs() > 0.99


def test_colours_lie_between_zero_and_one():
    colours = pca_colours(100 * torch.randn(2, 6, 3, 3))
    assert colours.shape == (2, 3, 3, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(8, 4, 4), r"features must be \(T, D, h, w\) with D of at least 3, got \(8, 4, 4\)"),
        (torch.zeros(1, 2, 4, 4), r"got \(1, 2, 4, 4\)"),
        (torch.full((1, 3, 2, 2), float("inf")), "NaN or infinite"),
    ],
)
def test_features_without_colours_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        pca_colours(features)


# -- a basis that is fixed once ----------------------------------------------------------------------------------------


def test_a_basis_of_some_frames_colours_equal_frames_equally_wherever_they_are():
    clip = torch.randn(6, 8, 4, 5)
    clip[5] = clip[2]
    basis = PcaBasis.fit(clip[:3])
    torch.testing.assert_close(basis.colours(clip[5]), basis.colours(clip[2]))
    torch.testing.assert_close(basis.colours(clip[1]), pca_colours(clip[:3])[1])


def test_the_basis_is_that_of_an_eigendecomposition():
    clip = torch.randn(4, 8, 5, 6) * torch.linspace(3, 1, 8)[:, None, None]
    basis = PcaBasis.fit(clip)
    points = clip.permute(0, 2, 3, 1).flatten(0, 2).double()
    values, vectors = torch.linalg.eigh(torch.cov(points.T))
    found = basis.directions.double()
    torch.testing.assert_close(
        (found * vectors[:, [-1, -2, -3]]).sum(0).abs(), torch.ones(3).double(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(basis.explained.double(), values[[-1, -2, -3]] / values.sum(), rtol=1e-4, atol=0)
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_order_of_the_frames_changes_no_sign():
    clip = torch.randn(5, 8, 4, 5)
    there, back = PcaBasis.fit(clip), PcaBasis.fit(clip.flip(0))
    torch.testing.assert_close(there.colours(clip[0]), back.colours(clip[0]), rtol=0, atol=1e-4)


def test_frames_of_a_basis_may_have_different_grids():
    frames = [torch.randn(8, 4, 5), torch.randn(8, 2, 7)]
    basis = PcaBasis.fit(iter(frames))
    assert basis.colours(frames[1]).shape == (2, 7, 3)


def test_beyond_the_frames_of_the_basis_colours_stay_in_range():
    basis = PcaBasis.fit(torch.randn(1, 8, 4, 5))
    colours = basis.colours(100 * torch.randn(8, 4, 5))
    assert (colours.min(), colours.max()) == (0, 1)


def test_a_basis_refuses_what_it_was_not_made_for():
    basis = PcaBasis.fit(torch.randn(1, 8, 4, 5))
    with pytest.raises(ValueError, match="features of width 8, got width 6"):
        basis.colours(torch.zeros(6, 4, 5))
    with pytest.raises(ValueError, match="no features to find colours for"):
        PcaBasis.fit([])
    with pytest.raises(ValueError, match=r"quantile must be at least 0 and below 0\.5, got 0\.5"):
        PcaBasis.fit(torch.randn(1, 8, 4, 5), quantile=0.5)
