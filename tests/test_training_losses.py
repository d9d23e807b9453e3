import math

import pytest
import torch

from midway_hub.training.losses import dino_loss, dino_pairs, entropy, prediction_loss, teacher_probabilities


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_dino_loss(student, teacher, temperature):
    """Mean over batch and pairs of −Σ_k t_k ln softmax(s/τ)_k, term by term in float64; also counts the terms."""
    per_frame = teacher.shape[1] // 2
    terms = []
    for q in range(2 * per_frame):
        for v in range(student.shape[1]):
            if v == q or (v < 2 * per_frame and abs(v - q) == per_frame):
                continue
            scores = student[:, v].double() / temperature
            exponentials = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
            probabilities = exponentials / exponentials.sum(dim=-1, keepdim=True)
            terms.append(-(teacher[:, q].double() * torch.log(probabilities)).sum(dim=-1).mean())
    return sum(terms) / len(terms), len(terms)


# -- which views are compared --------------------------------------------------------------------------------------


def test_four_global_of_twenty_views_make_72_terms():
    assert len(dino_pairs(4, 20)) == 72


def test_a_view_is_never_compared_with_itself_or_with_the_same_box_in_the_other_frame():
    everything = {(q, v) for q in range(4) for v in range(20)}
    left_out = {(0, 0), (1, 1), (2, 2), (3, 3), (0, 2), (2, 0), (1, 3), (3, 1)}
    assert set(dino_pairs(4, 20)) == everything - left_out


def test_pairs_follow_the_number_of_boxes():
    assert len(dino_pairs(6, 10)) == 6 * 10 - 6 * 2
    assert dino_pairs(2, 3) == [(0, 2), (1, 2)]


@pytest.mark.parametrize(("global_views", "views"), [(3, 8), (0, 4), (6, 4), (2, 2)])
def test_views_that_leave_nothing_to_compare_are_refused(global_views, views):
    with pytest.raises(ValueError, match=f"{global_views} global of {views} views cannot be compared; wanted are as"):
        dino_pairs(global_views, views)


# -- DINO loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("global_views", "views"), [(4, 20), (4, 4), (6, 9)])
def test_the_dino_loss_and_its_gradient_agree_with_the_formula_in_float64(global_views, views):
    student = random(3, views, 50).requires_grad_()
    teacher = (random(3, global_views, 50, seed=1) / 0.5).softmax(dim=-1)
    exact = student.detach().double().requires_grad_()
    expected, terms = naive_dino_loss(exact, teacher, 0.1)
    loss = dino_loss(student, teacher, temperature=0.1)
    loss.backward()
    expected.backward()
    assert terms == len(dino_pairs(global_views, views))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(student.grad.double(), exact.grad, rtol=1e-4, atol=1e-8)


def test_the_dino_loss_in_float64_is_exact():
    student, teacher = random(2, 6, 9).double(), random(2, 4, 9, seed=1).double().softmax(dim=-1)
    torch.testing.assert_close(
        dino_loss(student, teacher, temperature=0.1), naive_dino_loss(student, teacher, 0.1)[0], rtol=1e-13, atol=0
    )


def test_the_dino_loss_is_taken_in_float32_under_autocast():
    student, teacher = random(2, 6, 9).bfloat16(), random(2, 4, 9, seed=1).softmax(dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dino_loss(student, teacher, temperature=0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, dino_loss(student.float(), teacher, temperature=0.1), rtol=1e-5, atol=1e-6)


def test_outputs_too_large_for_an_exponential_give_a_finite_loss():
    student, teacher = 1000 * random(2, 6, 9), random(2, 4, 9, seed=1).softmax(dim=-1)
    assert dino_loss(student, teacher, temperature=0.1).isfinite()


def test_a_student_that_says_the_same_of_every_view_loses_the_log_of_the_prototypes():
    teacher = random(2, 4, 64, seed=1).softmax(dim=-1)
    loss = dino_loss(torch.full((2, 6, 64), 0.3), teacher, temperature=0.1)
    assert float(loss) == pytest.approx(math.log(64), rel=1e-5)


def test_teacher_probabilities_are_centred_and_sharpened():
    outputs, centre = random(2, 4, 9), random(9, seed=1)
    scores = torch.exp((outputs.double() - centre.double()) / 0.04)
    expected = scores / scores.sum(dim=-1, keepdim=True)
    found = teacher_probabilities(outputs, centre, temperature=0.04)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)


def test_entropy_of_certainty_is_0_and_of_a_uniform_distribution_its_log():
    assert float(entropy(torch.eye(8)[None])) == 0
    assert float(entropy(torch.full((2, 3, 8), 1 / 8))) == pytest.approx(math.log(8))


# -- prediction loss -----------------------------------------------------------------------------------------------


def test_the_prediction_loss_and_its_gradient_agree_with_the_formula_in_float64():
    predicted, target = random(2, 5, 8).requires_grad_(), random(2, 5, 8, seed=1)
    exact, goal = predicted.detach().double().requires_grad_(), target.double()
    unit, unit_goal = exact / exact.pow(2).sum(-1, keepdim=True).sqrt(), goal / goal.pow(2).sum(-1, keepdim=True).sqrt()
    expected = (unit - unit_goal).pow(2).sum(-1).mean()  # the squared distance of unit vectors
    loss = prediction_loss(predicted, target)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(predicted.grad.double(), exact.grad, rtol=1e-4, atol=1e-8)


def test_the_prediction_loss_runs_from_0_for_equal_to_4_for_opposite_directions():
    features = random(2, 5, 8)
    assert float(prediction_loss(3 * features, features)) == pytest.approx(0, abs=1e-6)
    assert float(prediction_loss(-features, features)) == pytest.approx(4)


def test_the_prediction_loss_of_half_precision_features_is_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prediction_loss(random(2, 5, 8).bfloat16(), random(2, 5, 8, seed=1)).dtype == torch.float32
