"""Windows over large frames, and the weighted mean of what is predicted in them."""

import math

import numpy as np
import pytest
import torch

from midway_hub.models.tiling import overlapping_windows, pad_to, predict_in_windows, round_up, stepped_windows

WINDOW = (320, 384)


def linear_field(height, width):
    """(1, 2, H, W): two planes that rise along both axes."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 * x - 0.25 * y + 3, 2.0 * y - x])[None].float()


def covered(offsets, frame, window):
    """How many windows lie over each pixel."""
    count = np.zeros(frame, dtype=int)
    for y, x in offsets:
        assert 0 <= y <= frame[0] - window[0]
        assert 0 <= x <= frame[1] - window[1]
        count[y : y + window[0], x : x + window[1]] += 1
    return count


# -- where the windows lie -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "counts"),
    [
        pytest.param((436, 1024), (10, 21, 90), id="sintel"),
        pytest.param((540, 960), (12, 24, 136), id="things"),
        pytest.param((384, 512), (4, 6, 20), id="chairs"),
        pytest.param((480, 640), (6, 12, 56), id="tartanair"),
        pytest.param((375, 1242), (12, 18, 72), id="kitti"),
        pytest.param((1080, 1920), (54, 135, 1050), id="spring"),
    ],
)
def test_frames_take_as_many_windows_as_published(frame, counts):
    assert tuple(len(overlapping_windows(frame, WINDOW, overlap)) for overlap in (0.5, 0.7, 0.9)) == counts


@pytest.mark.parametrize("frame", [(40, 48), (41, 95), (97, 48), (123, 201)])
@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.9])
def test_overlapping_windows_cover_every_pixel_and_overlap_as_asked(frame, overlap):
    offsets = overlapping_windows(frame, (40, 48), overlap)
    assert covered(offsets, frame, (40, 48)).min() >= 1
    for axis, side in enumerate((40, 48)):
        steps = np.diff(sorted({offset[axis] for offset in offsets}))
        assert all(steps <= (1 - overlap) * side + 1)  # offsets are rounded to pixels
        assert not len(steps) or steps.max() - steps.min() <= 1


def test_a_frame_of_the_windows_size_is_one_window():
    assert overlapping_windows((40, 48), (40, 48), 0.9) == [(0, 0)]
    assert stepped_windows((40, 48), (40, 48), (7, 7)) == [(0, 0)]


def test_windows_start_at_the_rounded_points_of_an_even_division():
    offsets = overlapping_windows((436, 1024), WINDOW, 0.7)
    assert sorted({y for y, _ in offsets}) == [0, 58, 116]
    assert sorted({x for _, x in offsets}) == [0, 107, 213, 320, 427, 533, 640]


@pytest.mark.parametrize(("frame", "count"), [((1024, 2048), 18), ((1024, 1820), 15), ((512, 512), 1), ((512, 513), 2)])
def test_stepped_windows_follow_mmsegmentation(frame, count):
    offsets = stepped_windows(frame, (512, 512), (341, 341))
    expected = []
    for row in range(max(frame[0] - 512 + 340, 0) // 341 + 1):
        for column in range(max(frame[1] - 512 + 340, 0) // 341 + 1):
            bottom, right = min(row * 341 + 512, frame[0]), min(column * 341 + 512, frame[1])
            expected.append((max(bottom - 512, 0), max(right - 512, 0)))
    assert offsets == expected
    assert len(offsets) == count
    assert covered(offsets, frame, (512, 512)).min() >= 1


@pytest.mark.parametrize("overlap", [-0.1, 1, 1.5, float("nan")])
def test_an_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap must be at least 0 and below 1, got"):
        overlapping_windows((64, 64), (32, 32), overlap)


@pytest.mark.parametrize(
    ("overlap", "window", "most"), [(0.999, 64, 0.984), (0.99, 64, 0.984), (0.97, 32, 0.968), (1 - 1e-12, 320, 0.996)]
)
def test_an_overlap_that_steps_by_less_than_a_pixel_is_refused(overlap, window, most):
    with pytest.raises(ValueError, match=f"by less than a pixel; take at most {most}, CroCo v2 reports at 0.9"):
        overlapping_windows((2000, 2000), (window, window), overlap)
    assert len(overlapping_windows((window + 8, window), (window, window), most)) > 1


def test_an_axis_that_one_window_fills_takes_any_overlap():
    assert overlapping_windows((8, 64), (8, 64), 0.999) == [(0, 0)]
    assert len(overlapping_windows((8, 200), (8, 64), 0.95)) == 1 + math.ceil(136 / 3.2)


def test_more_windows_than_anyone_could_wait_for_are_refused_before_they_are_listed():
    with pytest.raises(ValueError, match=r"cut into 1892×1892 windows of 64×64, more than 262144 in all"):
        overlapping_windows((2000, 2000), (64, 64), 0.984)
    with pytest.raises(ValueError, match=r"cut into \d{4}×\d{4} windows of 64×64"):
        overlapping_windows((100_000, 100_000), (64, 64), 0.7369)
    with pytest.raises(ValueError, match="a frame of 2000×3000 pixels would be cut into 1489×2489 windows of 512×512"):
        stepped_windows((2000, 3000), (512, 512), (1, 1))


def test_published_windows_are_allowed_in_large_frames():
    assert len(overlapping_windows((2160, 3840), (64, 64), 0.9)) == 329 * 592
    assert len(overlapping_windows((2160, 3840), (320, 384), 0.9)) == 59 * 92


@pytest.mark.parametrize("step", [(0, 8), (8, 33)])
def test_a_step_that_leaves_pixels_out_is_refused(step):
    with pytest.raises(ValueError, match="a step must be at least 1 and at most the window's side"):
        stepped_windows((64, 64), (32, 32), step)


def test_windows_larger_than_the_frame_are_refused():
    with pytest.raises(ValueError, match=r"windows of \(32, 32\) do not fit into frames of \(31, 64\): pad the frames"):
        overlapping_windows((31, 64), (32, 32), 0.5)
    with pytest.raises(ValueError, match="do not fit"):
        stepped_windows((64, 31), (32, 32), (16, 16))


# -- what is made of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 0.5, 0.9])
def test_a_linear_field_comes_back_as_it_was_whatever_the_weights(overlap):
    field, generator = linear_field(61, 83), torch.Generator().manual_seed(0)

    def weigh(prediction):
        return torch.rand(1, 1, *prediction.shape[-2:], generator=generator) * 99 + 0.01

    found = predict_in_windows(
        lambda part: part, [field], overlapping_windows((61, 83), (24, 32), overlap), (24, 32), weigh=weigh
    )
    torch.testing.assert_close(found, field, rtol=1e-6, atol=1e-5)


def test_a_constant_comes_back_as_it_was():
    field = torch.full((2, 1, 50, 70), 12.3)
    found = predict_in_windows(lambda part: part, [field], stepped_windows((50, 70), (32, 32), (11, 13)), (32, 32))
    torch.testing.assert_close(found, field, rtol=1e-6, atol=0)


def test_overlapping_predictions_are_averaged_by_their_weights():
    left, right = torch.tensor([[2.0, 0.5]]), torch.tensor([[8.0, 3.0]])  # value, weight
    predictions = iter(pair.view(1, 2, 1, 1).expand(1, 2, 4, 6) for pair in (left, right))
    found = predict_in_windows(
        lambda _: next(predictions), [torch.zeros(1, 3, 4, 8)], [(0, 0), (0, 2)], (4, 6), weigh=lambda p: p[:, 1:]
    )
    mean = (2 * 0.5 + 8 * 3) / 3.5
    torch.testing.assert_close(found[0, 0, 0].double(), torch.tensor([2.0, 2, mean, mean, mean, mean, 8, 8]).double())


def test_all_frames_are_cut_alike():
    first = linear_field(40, 40)
    found = predict_in_windows(torch.sub, [first, 3 * first], stepped_windows((40, 40), (16, 16), (9, 9)), (16, 16))
    torch.testing.assert_close(found, -2 * first, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_in_float32_whatever_the_network(dtype):
    offsets = overlapping_windows((32, 64), (32, 32), 0.9)
    found = predict_in_windows(
        lambda part: part[:, :1], [torch.full((1, 3, 32, 64), 3.0, dtype=dtype)], offsets, (32, 32),
        weigh=lambda prediction: torch.full_like(prediction, 2e4),
    )  # fmt: skip
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((1, 1, 32, 64), 3.0))


def test_a_prediction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"a window of \(32, 32\) was predicted as \(8, 8\)"):
        predict_in_windows(lambda part: part[..., :8, :8], [torch.zeros(1, 3, 32, 32)], [(0, 0)], (32, 32))


def test_no_windows_are_refused():
    with pytest.raises(ValueError, match="no windows"):
        predict_in_windows(torch.clone, [torch.zeros(1, 3, 32, 32)], [], (32, 32))


@pytest.mark.parametrize(("batch", "at_once", "sizes"), [(1, 4, {4, 1}), (2, 4, {4, 2}), (5, 4, {4, 1}), (3, 1, {1})])
def test_never_more_windows_go_through_than_are_allowed(batch, at_once, sizes):
    seen = []

    def predict(part):
        seen.append(len(part))
        return 2 * part

    frames = torch.randn(batch, 3, 40, 56)
    offsets = overlapping_windows((40, 56), (16, 16), 0.1)
    found = predict_in_windows(predict, [frames], offsets, (16, 16), at_once=at_once)
    assert max(seen) <= at_once
    assert set(seen) <= sizes
    assert sum(seen) == batch * len(offsets)
    torch.testing.assert_close(found, 2 * frames)


def test_gradients_do_not_keep_what_was_computed_within_windows():
    """The way there keeps the frames' share alone; the way back predicts anew and gives the same gradients."""
    layer = torch.nn.Conv2d(3, 64, 1)
    calls = []

    def predict(part):
        calls.append(len(part))
        return layer(part).exp().log().mean(dim=1, keepdim=True)

    def gradients(forgetting):
        layer.zero_grad()
        frame, kept = torch.linspace(-1, 1, 3 * 40 * 40).view(1, 3, 40, 40), []
        offsets = stepped_windows((40, 40), (16, 16), (8, 8))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            if forgetting:
                found = predict_in_windows(predict, [frame], offsets, (16, 16))
            else:
                windows = torch.cat([predict(frame[..., y : y + 16, x : x + 16]) for y, x in offsets])
                values = iter(windows.split(1))
                found = predict_in_windows(lambda part: next(values), [frame], offsets, (16, 16))
            found.square().sum().backward()
        return layer.weight.grad.clone(), sum(kept)

    (plain, everything), (found, little) = gradients(False), gradients(True)
    torch.testing.assert_close(found, plain)
    assert len(calls) == 16 + 2 * 16
    assert little < everything / 5


def test_without_gradients_every_window_is_predicted_once():
    calls = []
    with torch.no_grad():
        predict_in_windows(lambda part: calls.append(1) or part, [torch.zeros(1, 3, 32, 32)], [(0, 0)], (32, 32))
    assert len(calls) == 1


def test_gradients_reach_the_frames():
    frame = torch.ones(1, 1, 20, 30, requires_grad=True)
    offsets = overlapping_windows((20, 30), (16, 16), 0.5)
    predict_in_windows(torch.square, [frame], offsets, (16, 16)).sum().backward()
    torch.testing.assert_close(frame.grad, torch.full_like(frame, 2.0))


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_padding_repeats_the_right_and_the_bottom_edge():
    field = linear_field(5, 7)
    padded = pad_to(field, (8, 6))
    assert padded.shape == (1, 2, 8, 7)
    assert torch.equal(padded[..., :5, :], field)
    assert torch.equal(padded[..., 5:, :], field[..., -1:, :].expand(1, 2, 3, 7))


def test_sizes_are_rounded_up_to_multiples():
    assert round_up((436, 1024), 16) == (448, 1024)
    assert round_up((1, 17), 8) == (8, 24)
