"""J, F, PCK and their sums: by hand, and against formulas written another way."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from midway_hub.label_maps import object_numbers
from midway_hub.training.data.clip import SampleError
from midway_hub.training.evaluation.propagation.davis_scores import davis_scores, score_frame, statistics
from midway_hub.training.evaluation.propagation.masks import (
    boundary,
    boundary_accuracy,
    dilate,
    region_similarity,
    tolerance_pixels,
)
from midway_hub.training.evaluation.propagation.matfile import read_mat_array
from midway_hub.training.evaluation.propagation.pck import FAR, normalised_distances, pose_scores


def rectangle(top, left, bottom, right, size=(60, 80)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def blobs(seed, size=(48, 64)):
    coarse = np.random.default_rng(seed).random((size[0] // 8, size[1] // 8)) > 0.6
    return np.kron(coarse, np.ones((8, 8))).astype(bool)


@pytest.fixture(scope="module")
def davis_masks(shared):
    """Real masks of DAVIS' frames, and what a shifted, grown or holed prediction of them would be."""
    folder = shared / "data/davis/Annotations/480p"
    pairs = []
    for name, label in (("bike", 1), ("bike", 2), ("judo", 1)):
        truth = np.array(Image.open(folder / name / "00000.png")) == label
        assert truth.any()
        grown = truth | np.roll(truth, 9, axis=1) | np.roll(truth, -6, axis=0)
        holed = truth & ~np.roll(truth, 25, axis=0)
        pairs += [(np.roll(truth, (5, -7), axis=(0, 1)), truth), (grown, truth), (holed, truth)]
    return pairs


# -- J -----------------------------------------------------------------------------------------------------------------


def test_j_is_intersection_over_union():
    found, truth = rectangle(0, 0, 10, 20), rectangle(0, 10, 10, 40)
    assert region_similarity(found, truth) == 100 / 400
    assert region_similarity(truth, truth) == 1


def test_j_of_two_empty_masks_is_1_and_of_one_is_0():
    empty, full = rectangle(0, 0, 0, 0), rectangle(0, 0, 5, 5)
    assert region_similarity(empty, empty) == 1
    assert region_similarity(empty, full) == region_similarity(full, empty) == 0


def test_void_pixels_do_not_count():
    found, truth, void = rectangle(0, 0, 10, 20), rectangle(0, 0, 10, 10), rectangle(0, 15, 60, 80)
    assert region_similarity(found, truth, void=void) == 100 / 150
    cut = rectangle(0, 0, 60, 80) & ~void
    assert boundary_accuracy(found, truth, void=void) == boundary_accuracy(found & cut, truth & cut)


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"of one size, got \(60, 80\) and \(5, 5\)"):
        region_similarity(rectangle(0, 0, 1, 1), np.zeros((5, 5), bool))


# -- F -----------------------------------------------------------------------------------------------------------------


def test_the_tolerance_is_8_thousandths_of_the_diagonal_rounded_up():
    assert tolerance_pixels(480, 854) == 8
    assert tolerance_pixels(480, 880) == 9
    assert tolerance_pixels(3, 4) == 1


def test_a_boundary_is_where_a_neighbour_to_the_right_below_or_between_differs():
    for seed in range(5):
        mask = np.random.default_rng(seed).random((7, 9)) > 0.5
        expected = np.zeros_like(mask)
        for y in range(7):
            for x in range(9):
                around = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                # at the last row and column only the neighbour along the edge is left, and the corner has none
                expected[y, x] = any(mask[v, u] != mask[y, x] for v, u in around if v < 7 and u < 9)
        np.testing.assert_array_equal(boundary(mask), expected)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8])
def test_a_dilation_reaches_all_pixels_within_the_radius(radius):
    mask = np.random.default_rng(radius).random((23, 31)) > 0.98
    mask[0, 0] = True
    points = np.argwhere(mask)
    rows, columns = np.mgrid[:23, :31]
    apart = np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1]).min(axis=-1)
    np.testing.assert_array_equal(dilate(mask, radius), apart <= radius + 1e-9)


def test_a_dilation_is_opencvs_with_a_disk():
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[-8:9, -8:9]
    disk = (x**2 + y**2 <= 64).astype(np.uint8)
    mask = boundary(blobs(0))
    np.testing.assert_array_equal(dilate(mask, 8), cv2.dilate(mask.astype(np.uint8), disk) > 0)


def f_by_distances(found, truth):
    """F from the distances between all pairs of boundary pixels."""
    mine, true = (np.argwhere(boundary(mask)) for mask in (found, truth))
    limit = np.ceil(0.008 * np.sqrt(found.shape[0] ** 2 + found.shape[1] ** 2))
    squared = ((mine[:, None] - true[None]) ** 2).sum(axis=-1)
    precision, recall = ((squared.min(axis=axis) <= limit**2).mean() for axis in (1, 0))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_f_is_that_of_the_distances_between_all_boundary_pixels(seed):
    found, truth = blobs(seed), blobs(seed + 10)
    assert boundary_accuracy(found, truth) == pytest.approx(f_by_distances(found, truth), abs=1e-12)


def test_j_and_f_of_real_masks_agree_with_independent_formulas(davis_masks):
    for found, truth in davis_masks:
        union = (found.astype(int) + truth > 0).sum()
        assert region_similarity(found, truth) == pytest.approx((found * truth.astype(int)).sum() / union)
        assert boundary_accuracy(found, truth) == pytest.approx(f_by_distances(found, truth), abs=1e-12)


def test_real_masks_are_their_own_perfect_prediction(davis_masks):
    for _, truth in davis_masks:
        assert (region_similarity(truth, truth), boundary_accuracy(truth, truth)) == (1, 1)


def test_f_is_1_within_the_tolerance_and_0_far_from_it():
    truth = rectangle(20, 20, 40, 40, size=(480, 854))
    assert boundary_accuracy(rectangle(20, 28, 40, 48, size=(480, 854)), truth) > 0.99
    assert boundary_accuracy(rectangle(300, 300, 320, 320, size=(480, 854)), truth) == 0


def test_without_boundaries_f_is_1_and_with_one_alone_0():
    empty, full = rectangle(0, 0, 0, 0), rectangle(10, 10, 20, 20)
    assert boundary_accuracy(empty, empty) == 1
    assert boundary_accuracy(empty, full) == boundary_accuracy(full, empty) == 0
    assert boundary_accuracy(~empty, ~empty) == 1


# -- over time and objects ---------------------------------------------------------------------------------------------


def test_recall_is_the_share_above_one_half_and_decay_first_quarter_minus_last():
    found = statistics([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert found.mean == pytest.approx(0.55)
    assert found.recall == 4 / 8
    # bins of DAVIS share their edges: of 8 frames the first has 1 to 3, the last 6 to 8
    assert found.decay == pytest.approx((0.9 + 0.8 + 0.7) / 3 - (0.4 + 0.3 + 0.2) / 3)


def test_bins_are_those_of_rounded_even_steps():
    for length in range(1, 130):
        values = np.random.default_rng(length).random(length)
        edges = np.round(np.linspace(1, length, 5) + 1e-10).astype(int) - 1
        bins = [values[edges[n] : edges[n + 1] + 1] for n in range(4)]
        assert statistics(values).decay == pytest.approx(bins[0].mean() - bins[3].mean()), length


def test_numbers_are_means_over_all_objects_in_percent():
    scores = davis_scores([{"j": [0.6] * 5, "f": [0.8] * 5}, {"j": [0.2, 0.3, 0.4], "f": [0.4] * 3}])
    assert scores.j.mean == pytest.approx(100 * (0.6 + 0.3) / 2)
    assert scores.f.mean == pytest.approx(100 * (0.8 + 0.4) / 2)
    assert scores.jf_mean == pytest.approx((scores.j.mean + scores.f.mean) / 2)
    assert (scores.j.recall, scores.f.recall, scores.objects) == (50, 50, 2)


def test_objects_are_the_numbers_of_the_first_label_map():
    labels = np.array([[0, 3, 255], [7, 3, 0]], np.uint8)
    assert object_numbers(labels, "first.png") == [3, 7]
    j, f = score_frame(labels, np.array([[0, 3, 0], [3, 3, 0]], np.uint8), [3, 7])
    assert j == [2 / 3, 0]
    assert len(f) == 2


def test_nothing_to_score_is_said():
    with pytest.raises(ValueError, match="there are no objects"):
        davis_scores([])
    with pytest.raises(ValueError, match="wanted at least 3"):
        statistics([])


# -- PCK ---------------------------------------------------------------------------------------------------------------


def test_distances_are_in_parts_of_the_box_of_the_true_joints():
    truth = np.zeros((3, 15, 2))
    truth[:, 1] = [30, 40]  # the box is 30×40, its diagonal 50, the unit 30
    found = truth.copy()
    found[1, 0] = [3, 0]
    found[2, 1] = [30, 70]
    distances = normalised_distances(found, truth)
    assert distances[0] == pytest.approx([0.1, 0])
    assert distances[1] == pytest.approx([0, 1])


def test_neither_the_first_frame_nor_lost_joints_count_and_the_box_is_of_those_that_were_found():
    truth = np.zeros((2, 15, 2))
    truth[:, 1], truth[:, 2] = [30, 40], [300, 400]
    found = truth.copy()
    found[0] += 1000
    found[1, 0] = [6, 0]
    found[1, 2:] = np.nan
    distances = normalised_distances(found, truth)
    assert distances[0] == pytest.approx([0.2])
    assert distances[1] == [0]
    assert distances[2] == []


def test_a_box_without_extent_has_nothing_near():
    truth, found = np.zeros((2, 15, 2)), np.ones((2, 15, 2))
    assert normalised_distances(found, truth) == [[FAR]] * 15


def test_pck_is_the_mean_over_joints_of_the_share_within():
    scores = pose_scores([[0.05, 0.1, 0.3], [0.45], []])
    assert scores.pck["0.1"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert scores.pck["0.5"] == 100
    assert scores.keypoints == 4


def test_joints_of_two_shapes_or_none_at_all_are_refused():
    with pytest.raises(ValueError, match="joints must be"):
        normalised_distances(np.zeros((2, 15, 2)), np.zeros((2, 14, 2)))
    with pytest.raises(ValueError, match="no joint was found"):
        pose_scores([[], []])


# -- MATLAB files ------------------------------------------------------------------------------------------------------

# What scipy 1.17 writes of {"note": "walk", "small": int16 [[1, -2, 3]], "pos_img": (2, 3, 2) of 0.5, 1.5, ...}
SAVED = {
    "plain": """
TUFUTEFCIDUuMCBNQVQtZmlsZSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC
AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAAAAAAAAAAAAABSU0OAAAAMAAAAAYAAAAIAAAABAAAAAAAAAAFAAAACAAAAAEAAAAE
AAAAAQAEAG5vdGUQAAQAd2Fsaw4AAABAAAAABgAAAAgAAAAKAAAAAAAAAAUAAAAIAAAAAQAAAAMAAAABAAAABQAAAHNtYWxsAAAAAwAAAAYAAA
ABAP7/AwAAAA4AAACgAAAABgAAAAgAAAAGAAAAAAAAAAUAAAAMAAAAAgAAAAMAAAACAAAAAAAAAAEAAAAHAAAAcG9zX2ltZwAJAAAAYAAAAAAA
AAAAAOA/AAAAAAAAGkAAAAAAAAAEQAAAAAAAACFAAAAAAAAAEkAAAAAAAAAlQAAAAAAAAPg/AAAAAAAAHkAAAAAAAAAMQAAAAAAAACNAAAAAAA
AAFkAAAAAAAAAnQA==
""",
    "compressed": """
TUFUTEFCIDUuMCBNQVQtZmlsZSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC
AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAAAAAAAAAAAAABSU0PAAAAKgAAAHic42NgYDAAYjYg5gBiFgYIYIXyGaFijEAyL78k
VQBIlyfmZAMAKTQD4Q8AAAAuAAAAeJzjY2BgcABiNiDmAGIuBghghfIZgZgZSoPEinMTc3KgYmxg8X//QWwAWAgEoQ8AAABVAAAAeJzjY2BgWA
DEbEDMAaVBgBWIeYCYCYiZoTQIMAIxOxAX5BfHZ+amM3AC2QkMMPDAHkJLOUBoFiitCKWFoLQqlP4BVS8H5fNAaWUoLQal1R0AGgoKEA==
""",
}


@pytest.fixture(params=SAVED)
def matlab_file(request, tmp_path):
    (tmp_path / "joints.mat").write_bytes(base64.b64decode("".join(SAVED[request.param].split())))
    return tmp_path / "joints.mat"


def test_arrays_of_matlab_files_are_read(matlab_file):
    np.testing.assert_array_equal(read_mat_array(matlab_file, "pos_img"), np.arange(12.0).reshape(2, 3, 2) + 0.5)
    np.testing.assert_array_equal(read_mat_array(matlab_file, "small"), [[1, -2, 3]])


def test_what_is_no_array_of_numbers_is_refused_with_what_there_is(matlab_file):
    with pytest.raises(SampleError, match="no numbers called 'joints', only note, small, pos_img"):
        read_mat_array(matlab_file, "joints")
    with pytest.raises(SampleError, match="no numbers called 'note'"):
        read_mat_array(matlab_file, "note")


def test_a_cut_off_file_is_broken(matlab_file):
    matlab_file.write_bytes(matlab_file.read_bytes()[:-20])
    with pytest.raises(SampleError, match="is broken"):
        read_mat_array(matlab_file, "pos_img")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n", b"MATLAB 4" + bytes(200)])
def test_files_of_other_versions_are_refused(tmp_path, content):
    (tmp_path / "joints.mat").write_bytes(content)
    with pytest.raises(SampleError, match="no MATLAB file of version 5"):
        read_mat_array(tmp_path / "joints.mat", "pos_img")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"joints\.mat: there is no such file"):
        read_mat_array(tmp_path / "joints.mat", "pos_img")


def test_what_scipy_writes_today_is_read(tmp_path):
    io_of_scipy = pytest.importorskip("scipy.io")
    for number, dtype in enumerate(("f8", "f4", "i4", "u1", "i8")):
        array = np.random.default_rng(number).integers(0, 100, (2, 15, 7)).astype(dtype)
        buffer = io.BytesIO()
        io_of_scipy.savemat(buffer, {"viewpoint": "NE", "pos_img": array}, do_compression=number % 2 == 0)
        (tmp_path / "a.mat").write_bytes(buffer.getvalue())
        np.testing.assert_array_equal(read_mat_array(tmp_path / "a.mat", "pos_img"), array)
