import pytest
import torch
from conftest import make_tiny_net

from midway_hub.analysis.pca import pca_colours
from midway_hub.analysis.perturbation import perturbation_heatmaps


def frames(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed))


# -- PCA -----------------------------------------------------------------------------------------------------------


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


# -- perturbation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [8, 2])
def test_heatmaps_agree_with_finite_differences(level):
    net = make_tiny_net().double()
    source, target = frames(1).double(), frames(2).double()
    motion = net.infer_motion(source, target)
    heatmap = perturbation_heatmaps(net, motion, [5], level=level, draws=3)[0]

    index = motion.levels.index(level)
    predictor, tokens = net.dynamics.levels[str(level)], net.dynamics.motion_proj(motion.latents[index])
    scores = []
    for direction in torch.randn(3, 48, generator=torch.Generator().manual_seed(0)).double():
        step = torch.zeros_like(motion.source[index])
        step[0, 1 + 5] = 1e-4 * direction
        moved = predictor.predict(tokens, motion.source[index] + step) - predictor.predict(
            tokens, motion.source[index] - step
        )
        scores.append(torch.cosine_similarity(moved[0, 1:], direction[None], dim=-1))
    torch.testing.assert_close(heatmap.flatten(), torch.stack(scores).mean(0), rtol=1e-4, atol=1e-5)


def test_heatmaps_do_not_depend_on_the_chunk():
    net = make_tiny_net()
    motion = net.infer_motion(frames(1), frames(2))
    whole = perturbation_heatmaps(net, motion, [0, 7, 11], draws=4, chunk=100)
    pieces = perturbation_heatmaps(net, motion, [0, 7, 11], draws=4, chunk=5)
    assert whole.shape == (3, 3, 4)
    torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [12]}, r"tokens must be patches from 0 to 11 of the \(3, 4\) grid, got \[12\]"),
        ({"tokens": []}, "tokens must be patches"),
        ({"tokens": [0], "level": 3}, r"level 3 is not one of the network's levels \(8, 5, 2\)"),
        ({"tokens": [0], "draws": 0}, "draws and chunk must be at least 1"),
    ],
)
def test_perturbing_what_is_not_there_is_refused(arguments, message):
    net = make_tiny_net()
    with pytest.raises(ValueError, match=message):
        perturbation_heatmaps(net, net.infer_motion(frames(1), frames(2)), **arguments)


def test_heatmaps_are_made_for_one_pair_at_a_time():
    net = make_tiny_net()
    motion = net.infer_motion(frames(1).repeat(2, 1, 1, 1), frames(2).repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"motion must be that of one pair of frames, got target_context of shape \(2"):
        perturbation_heatmaps(net, motion, [0])
