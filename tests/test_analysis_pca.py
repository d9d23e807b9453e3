import pytest
import torch

from midway_hub.analysis.pca import pca_colours


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
