"""Losses of optical flow against the formulas of CroCo v2, written out in float64 pixel by pixel."""

import math

import pytest
import torch

from midway_hub.training.tasks.flow_losses import FLOW_LOSSES, bounded_laplacian, bounded_log_laplacian, l1, laplacian

B, H, W = 2, 3, 5


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def written_bounded(error, s, a=0.25, b=4.0):
    d = (b - a) * sigmoid(s) + a
    return error / d + math.log(d)


def written_bounded_log(error, s, a=3.0, b=3.0):
    c = 2 * a * (sigmoid(s / b) - 0.5)
    return error / math.exp(c) + c


FORMULAS = {
    "bounded_laplacian": written_bounded,
    "bounded_log_laplacian": written_bounded_log,
    "laplacian": lambda error, s: error / math.exp(s) + s,
    "l1": lambda error, s: error,
}


def written_out(name, estimate, flow, valid, max_flow=10_000.0):
    """Mean of the formula over the pixels that count, in Python's floats."""
    values = []
    for image in range(B):
        for y in range(H):
            for x in range(W):
                u, v, s = estimate[image, :, y, x].tolist()
                true_u, true_v = flow[image, :, y, x].tolist()
                known = valid[image, y, x] and math.isfinite(true_u) and math.isfinite(true_v)
                if known and math.hypot(true_u, true_v) < max_flow:
                    values.append(FORMULAS[name](abs(u - true_u) + abs(v - true_v), s))
    return math.fsum(values) / len(values)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    estimate = 3 * torch.randn(B, 3, H, W, generator=generator)
    flow = 20 * torch.randn(B, 2, H, W, generator=generator)
    valid = torch.rand(B, H, W, generator=generator) < 0.7
    return estimate, flow, valid


def test_every_loss_has_a_formula_here():
    assert FLOW_LOSSES.keys() == FORMULAS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_the_mean_of_its_formula_over_the_valid_pixels_of_the_batch(name):
    estimate, flow, valid = batch()
    valid[1] = False
    valid[1, 0, 0] = True  # a mean per image would count this pixel as much as all of the other image
    found = FLOW_LOSSES[name](estimate, flow, valid)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(written_out(name, estimate, flow, valid), rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_pixels_that_move_too_far_do_not_count(name):
    estimate, flow, valid = batch()
    flow[0, :, 0, 0] = torch.tensor([30.0, 40.0])  # 50 pixels, not below 50
    valid[0, 0, 0] = True
    found = FLOW_LOSSES[name](estimate, flow, valid, max_flow=50.0)
    assert float(found) == pytest.approx(written_out(name, estimate, flow, valid, max_flow=50.0), rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("unknown", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("marked", [True, False])
def test_flow_that_is_not_finite_counts_nowhere_and_spoils_no_gradient(name, unknown, marked):
    estimate, flow, valid = batch()
    flow[0, 1, 1, 1], valid[0, 1, 1] = unknown, marked
    estimate.requires_grad_()
    found = FLOW_LOSSES[name](estimate, flow, valid)
    found.backward()
    assert found.item() == pytest.approx(written_out(name, estimate, flow, valid), rel=1e-5)
    assert estimate.grad.isfinite().all()
    assert not estimate.grad[0, :, 1, 1].any()


@pytest.mark.parametrize("name", FORMULAS)
def test_without_a_valid_pixel_the_loss_is_zero_and_so_is_its_gradient(name):
    estimate, flow, valid = batch()
    estimate.requires_grad_()
    found = FLOW_LOSSES[name](estimate, flow, torch.zeros_like(valid))
    found.backward()
    assert found == 0
    assert torch.equal(estimate.grad, torch.zeros_like(estimate))


@pytest.mark.parametrize("name", FORMULAS)
def test_a_wild_estimate_where_nothing_is_known_spoils_no_gradient(name):
    estimate, flow, valid = batch()
    estimate[0, :, 0, 0], valid[0, 0, 0] = -1e30, False
    estimate.requires_grad_()
    FLOW_LOSSES[name](estimate, flow, valid).backward()
    assert estimate.grad.isfinite().all()
    assert estimate.grad.any()


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_the_formula(name):
    estimate, flow, valid = batch()
    exact = estimate.double().requires_grad_()
    channels = exact.unbind(1)
    error = (channels[0] - flow[:, 0]).abs() + (channels[1] - flow[:, 1]).abs()
    s = channels[2]
    d, c = 3.75 / (1 + (-s).exp()) + 0.25, 6 * (1 / (1 + (-s / 3).exp()) - 0.5)
    terms = {
        "bounded_laplacian": error / d + d.log(),
        "bounded_log_laplacian": error / c.exp() + c,
        "laplacian": error / s.exp() + s,
        "l1": error,
    }
    terms[name][valid].mean().backward()
    estimate.requires_grad_()
    FLOW_LOSSES[name](estimate, flow, valid).backward()
    torch.testing.assert_close(estimate.grad, exact.grad.float(), rtol=1e-4, atol=1e-6)


def test_half_precision_estimates_are_compared_in_float32():
    estimate, flow, valid = batch()
    flow = flow * 500  # a mean of these overflows float16
    found = bounded_laplacian(estimate.half(), flow, valid)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(written_out("bounded_laplacian", estimate.half(), flow, valid), rel=1e-5)


def test_bounds_of_the_scale_are_taken():
    estimate, flow, valid = batch()
    found = bounded_laplacian(estimate, flow, valid, bounds=(0.1, 9.0))
    expected = [
        written_bounded(
            float((estimate[i, :2, y, x] - flow[i, :, y, x]).abs().sum()), float(estimate[i, 2, y, x]), 0.1, 9
        )
        for i, y, x in valid.nonzero().tolist()
    ]
    assert float(found) == pytest.approx(math.fsum(expected) / len(expected), rel=1e-5)


def test_l1_needs_no_scale():
    estimate, flow, valid = batch()
    assert l1(estimate[:, :2], flow, valid) == l1(estimate, flow, valid)


@pytest.mark.parametrize("loss", [bounded_laplacian, bounded_log_laplacian, laplacian])
def test_a_laplacian_without_a_scale_is_refused(loss):
    estimate, flow, valid = batch()
    with pytest.raises(ValueError, match=r"wanted an estimate \(B, 3, H, W\).* got \(2, 2, 3, 5\)"):
        loss(estimate[:, :2], flow, valid)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e, f, v: (e, f.movedim(1, -1), v),
        lambda e, f, v: (e, f[..., :-1], v),
        lambda e, f, v: (e, f, v[:, None]),
        lambda e, f, v: (e, f, v.float()),
        lambda e, f, v: (e, f[:1], v),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(spoil):
    with pytest.raises(ValueError, match=r"wanted an estimate .* and valid \(B, H, W\) bool, got"):
        bounded_laplacian(*spoil(*batch()))
