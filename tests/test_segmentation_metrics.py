"""Segmentation metrics against mmsegmentation's formulas written out per class, and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from evaluation_sets import labelled_pictures

from midway_hub.training.data.segmentation.classes import class_list
from midway_hub.training.evaluation.segmentation.metrics import SegmentationMeter

CLASSES = ("sky", "tree", "house", "unicorn")


def predictions(seed=1, *, classes=3, count=3):
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(0, classes, sample.labels.shape), sample.labels)
        for sample in labelled_pictures(count, classes=classes)
    ]


def measured(pairs, classes=CLASSES):
    meter = SegmentationMeter(classes)
    for labels, truth in pairs:
        meter.update(labels, truth)
    return meter.result()


def flat(pairs):
    found, truth = (np.concatenate([pair[side].ravel() for pair in pairs]).astype(int) for side in (0, 1))
    return found[truth != 255], truth[truth != 255]


def test_numbers_equal_the_formulas_per_class():
    pairs = predictions()
    result, (found, truth) = measured(pairs), flat(pairs)
    ious, recalls = [], []
    for number, name in enumerate(CLASSES[:3]):
        hit = np.sum((found == number) & (truth == number))
        ious.append(100 * hit / np.sum((found == number) | (truth == number)))
        recalls.append(100 * hit / np.sum(truth == number))
        assert result.iou[name] == pytest.approx(ious[-1], rel=1e-12)
        assert result.recall[name] == pytest.approx(recalls[-1], rel=1e-12)
        assert result.pixels[name] == np.sum(truth == number)
    assert result.miou == pytest.approx(np.mean(ious), rel=1e-12)
    assert result.class_accuracy == pytest.approx(np.mean(recalls), rel=1e-12)
    assert result.accuracy == pytest.approx(100 * np.mean(found == truth), rel=1e-12)


def test_numbers_equal_those_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    pairs = predictions(classes=4)
    found, truth = (np.stack([pair[side] for pair in pairs]).astype(np.int64) for side in (0, 1))
    options = {"num_classes": 4, "ignore_index": 255}
    expected = {
        "miou": torchmetrics.MulticlassJaccardIndex(average="macro", **options),
        "accuracy": torchmetrics.MulticlassAccuracy(average="micro", **options),
        "class_accuracy": torchmetrics.MulticlassAccuracy(average="macro", **options),
    }
    result = measured(pairs)
    for name, metric in expected.items():
        theirs = metric(torch.from_numpy(found), torch.from_numpy(truth))
        assert getattr(result, name) == pytest.approx(100 * theirs.item(), rel=1e-5), name


def test_a_class_that_does_not_occur_is_nan_and_left_out_of_the_mean():
    result = measured(predictions())
    assert math.isnan(result.iou["unicorn"])
    assert math.isnan(result.recall["unicorn"])
    assert result.miou == pytest.approx(np.mean([result.iou[name] for name in CLASSES[:3]]))


def test_a_class_that_is_only_predicted_counts_with_zero():
    result = measured([(np.array([[0, 3]]), np.array([[0, 0]]))])
    assert result.iou["unicorn"] == 0
    assert math.isnan(result.recall["unicorn"])
    assert result.miou == pytest.approx((50 + 0) / 2)


def test_the_mean_is_pooled_over_the_data_set_and_not_over_pictures():
    result = measured([(np.array([[0, 0]]), np.array([[0, 1]])), (np.array([[1, 1]]), np.array([[1, 1]]))])
    assert result.miou == pytest.approx((50 + 100 * 2 / 3) / 2)


def test_ignored_pixels_count_nowhere_whatever_is_predicted_there():
    truth = np.array([[0, 255, 1]])
    results = [measured([(np.array([[0, guess, 2]]), truth)]) for guess in (0, 1, 3)]
    assert all(str(result) == str(results[0]) for result in results)
    assert results[0].accuracy == 50


def test_nothing_but_ignored_pixels_gives_nan():
    result = measured([(np.zeros((2, 2), int), np.full((2, 2), 255))])
    assert math.isnan(result.miou)
    assert math.isnan(result.accuracy)


def test_merged_meters_equal_one_meter():
    pairs, half = predictions(), SegmentationMeter(CLASSES)
    meter = SegmentationMeter(CLASSES)
    meter.update(*pairs[0])
    for pair in pairs[1:]:
        half.update(*pair)
    meter.merge(half.state())
    assert str(meter.result()) == str(measured(pairs))


def test_counts_of_another_number_of_classes_do_not_merge():
    with pytest.raises(ValueError, match="3 classes do not go with those of 4"):
        SegmentationMeter(CLASSES).merge(SegmentationMeter(CLASSES[:3]).state())


@pytest.mark.parametrize(("labels", "truth", "what"), [([[4]], [[0]], "prediction"), ([[0]], [[7]], "truth")])
def test_a_number_that_is_no_class_is_an_error_that_names_it(labels, truth, what):
    with pytest.raises(ValueError, match=rf"picture 7: the {what} holds [47], which is no class: there are 0 to 3"):
        SegmentationMeter(CLASSES).update(np.array(labels), np.array(truth), name="picture 7")


def test_labels_of_another_size_are_an_error_that_names_both():
    with pytest.raises(ValueError, match=r"labels of shape \(2, 3\) for a truth of \(3, 2\)"):
        SegmentationMeter(CLASSES).update(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_the_19_classes_of_driving_are_grouped_by_size_and_frequency():
    names = class_list("cityscapes", None).names
    generator = np.random.default_rng(0)
    result = measured([(generator.integers(0, 19, (60, 60)), generator.integers(0, 19, (60, 60)))], names)
    small = ("pole", "bicycle", "person", "motorcycle", "traffic sign", "rider", "traffic light")
    rare = ("bus", "wall", "train", "bicycle", "motorcycle", "rider")
    assert result.groups["small"] == pytest.approx(np.mean([result.iou[name] for name in small]))
    assert result.groups["large"] == pytest.approx(np.mean([result.iou[name] for name in names if name not in small]))
    assert result.groups["rare"] == pytest.approx(np.mean([result.iou[name] for name in rare]))
    assert result.groups["common"] == pytest.approx(np.mean([result.iou[name] for name in names if name not in rare]))


def test_other_sets_of_classes_have_no_groups():
    assert measured(predictions()).groups == {}
