"""Flow metrics against formulas written out over single pixels."""

import math

import numpy as np
import pytest
from evaluation_sets import flow_sample

from midway_hub.training.evaluation.flow.metrics import REGIONS, FlowMeter, pixel_errors


def random_sample(seed=0, *, size=(7, 9), spread=25.0, **options):
    generator = np.random.default_rng(seed)
    flow = generator.normal(scale=spread, size=(*size, 2)).astype(np.float32)
    valid = generator.random(size) < 0.7
    occluded = generator.random(size) < 0.3
    estimate = (flow + generator.normal(scale=4, size=flow.shape)).transpose(2, 0, 1).astype(np.float32)
    return estimate, flow_sample(flow, valid=valid, occluded=occluded, **options)


def pixels(estimate, sample):
    """(EPE, L1, true speed, occluded) of every valid pixel, one after the other."""
    for y, x in zip(*np.nonzero(sample.valid), strict=True):
        dx, dy = (float(estimate[axis, y, x]) - float(sample.flow[y, x, axis]) for axis in (0, 1))
        u, v = map(float, sample.flow[y, x])
        yield math.sqrt(dx * dx + dy * dy), abs(dx) + abs(dy), math.sqrt(u * u + v * v), bool(sample.occluded[y, x])


def measured(*pairs):
    meter = FlowMeter()
    for estimate, sample in pairs:
        meter.update(estimate, sample)
    return meter.result()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_numbers_equal_the_formulas_over_single_pixels():
    estimate, sample = random_sample()
    found = measured((estimate, sample)).pooled
    each = list(pixels(estimate, sample))
    assert found["epe"] == pytest.approx(mean(e for e, *_ in each), rel=1e-12)
    assert found["l1"] == pytest.approx(mean(l1 for _, l1, *_ in each), rel=1e-12)
    for limit in (0.5, 1, 3, 5):
        assert found[f"bad_{limit:g}"] == pytest.approx(100 * mean(e > limit for e, *_ in each), rel=1e-12)
    assert found["fl_all"] == pytest.approx(100 * mean(e > 3 and e / s > 0.05 for e, _, s, _ in each), rel=1e-12)


def test_an_outlier_of_kitti_is_off_by_3_pixels_and_by_5_percent():
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, :, 0] = (100, 10, 10)
    estimate = flow.transpose(2, 0, 1).copy()
    estimate[0] += [[4, 4, 2.5]]  # 4 % off; 40 % off; below 3 pixels
    assert measured((estimate, flow_sample(flow))).pooled["fl_all"] == pytest.approx(100 / 3)


def test_regions_are_measured_by_true_speed_and_by_visibility():
    estimate, sample = random_sample()
    result = measured((estimate, sample))
    each = list(pixels(estimate, sample))
    inside = {
        "speed_0_10": [e for e, _, s, _ in each if s < 10],
        "speed_10_40": [e for e, _, s, _ in each if 10 <= s < 40],
        "speed_40": [e for e, _, s, _ in each if s >= 40],
        "occluded": [e for e, *_, hidden in each if hidden],
        "visible": [e for e, *_, hidden in each if not hidden],
    }
    for region, errors in inside.items():
        assert result.pixels[region] == len(errors) > 0
        assert result.pooled[f"{region}/epe"] == pytest.approx(mean(errors), rel=1e-12)


def test_speeds_of_exactly_10_and_40_pixels_belong_to_the_faster_region():
    flow = np.zeros((1, 2, 2), np.float32)
    flow[0, :, 1] = (10, 40)
    counted = measured((np.zeros((2, 1, 2)), flow_sample(flow))).pixels
    assert (counted["speed_0_10"], counted["speed_10_40"], counted["speed_40"]) == (0, 1, 1)


def test_pixels_pool_over_the_data_set_and_images_count_alike():
    size = {0: (4, 5), 1: (8, 10)}
    pairs = [random_sample(seed, size=size[seed]) for seed in size]
    result = measured(*pairs)
    errors = [[e for e, *_ in pixels(*pair)] for pair in pairs]
    assert result.pooled["epe"] == pytest.approx(mean(errors[0] + errors[1]), rel=1e-12)
    assert result.per_image["epe"] == pytest.approx(mean(map(mean, errors)), rel=1e-12)
    assert result.pooled["epe"] != pytest.approx(result.per_image["epe"])


def test_an_image_without_valid_pixels_does_not_count_as_an_image():
    good, (estimate, sample) = random_sample(0), random_sample(1)
    nothing = flow_sample(sample.flow, valid=np.zeros_like(sample.valid))
    assert measured(good, (estimate, nothing)).per_image == measured(good).per_image


def test_invalid_pixels_never_count_whatever_stands_there():
    estimate, sample = random_sample()
    spoilt = sample.flow.copy()
    spoilt[~sample.valid] = np.inf
    other = flow_sample(spoilt, valid=sample.valid, occluded=sample.occluded)
    assert measured((estimate, other)) == measured((estimate, sample))


def test_flow_that_is_not_finite_is_not_valid():
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0] = (np.nan, 0)
    result = measured((np.ones((2, 2, 2)), flow_sample(flow)))
    assert result.pixels["all"] == 3
    assert result.pooled["epe"] == pytest.approx(math.sqrt(2))


def test_no_valid_pixel_gives_nan_and_not_zero():
    estimate, sample = random_sample()
    result = measured((estimate, flow_sample(sample.flow, valid=np.zeros_like(sample.valid))))
    assert result.pixels == dict.fromkeys(REGIONS, 0)
    assert all(math.isnan(value) for value in (*result.pooled.values(), *result.per_image.values()))


def test_visible_and_occluded_are_nan_where_the_data_set_does_not_say():
    estimate, sample = random_sample()
    result = measured((estimate, flow_sample(sample.flow, valid=sample.valid)))
    assert math.isnan(result.pooled["visible/epe"])
    assert math.isnan(result.pooled["occluded/epe"])
    assert not math.isnan(result.pooled["epe"])


def test_sequences_are_pooled_apart():
    a, b, c = (random_sample(seed, sequence=name) for seed, name in enumerate("xyx"))
    result = measured(a, b, c)
    assert result.pairs == {"x": 2, "y": 1}
    assert result.sequences == {"x": measured(a, c).sequences["x"], "y": measured(b).pooled}


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_estimate_that_is_not_finite_is_an_error_that_names_the_pair(broken):
    estimate, sample = random_sample(name="ambush_5/frame_0003")
    estimate[1, 2, 3] = broken
    with pytest.raises(ValueError, match=r"ambush_5/frame_0003.* 1 values that are NaN or infinite"):
        FlowMeter().update(estimate, sample)


def test_an_estimate_of_another_size_is_an_error_that_names_both():
    _, sample = random_sample(name="ambush_5/frame_0003")
    with pytest.raises(ValueError, match=r"ambush_5/frame_0003.*\(7, 9, 2\).*\(2, 7, 9\)"):
        FlowMeter().update(np.zeros((7, 9, 2)), sample)


def test_merged_meters_equal_one_meter():
    pairs = [random_sample(seed, sequence="ab"[seed % 2]) for seed in range(5)]
    together, first, second = FlowMeter(), FlowMeter(), FlowMeter()
    for number, pair in enumerate(pairs):
        together.update(*pair)
        (first, second)[number >= 2].update(*pair)
    first.merge(second.state())
    whole, merged = together.result(), first.result()
    assert merged.pixels == whole.pixels
    assert merged.pairs == whole.pairs
    assert merged.pooled == pytest.approx(whole.pooled, rel=1e-12)
    assert merged.per_image == pytest.approx(whole.per_image, rel=1e-12)


def test_sums_of_many_pixels_keep_their_precision():
    flow = np.zeros((64, 64, 2), np.float32)
    estimate = np.full((2, 64, 64), 0.1, np.float32)
    meter = FlowMeter()
    for _ in range(50):
        meter.update(estimate, flow_sample(flow))
    assert meter.result().pooled["epe"] == pytest.approx(math.sqrt(2) * float(np.float32(0.1)), rel=1e-13)


def test_a_pixel_of_spring_takes_the_nearest_of_its_four_true_displacements():
    generator = np.random.default_rng(3)
    flow = generator.normal(scale=20, size=(6, 8, 2)).astype(np.float32)
    valid = generator.random((6, 8)) < 0.6
    valid[:2, :2] = False
    estimate = generator.normal(scale=20, size=(2, 3, 4))
    found = pixel_errors(estimate, flow_sample(flow, valid=valid, scale=2))
    expected = []
    for y in range(3):
        for x in range(4):
            cells = [(2 * y + i, 2 * x + j) for i in (0, 1) for j in (0, 1)]
            candidates = [
                (math.dist(estimate[:, y, x], flow[cell]), float(np.hypot(*flow[cell].astype(float))))
                for cell in cells
                if valid[cell]
            ]
            assert found.valid[y, x] == bool(candidates)
            expected += [min(candidates)] if candidates else []
    assert not found.valid[0, 0]
    np.testing.assert_allclose(np.stack([found.epe, found.speed], axis=1), expected, rtol=1e-12)
