"""The report on what label files hold: each mistake it has to catch, made on purpose."""

import json

import numpy as np
import pytest
from PIL import Image

from midway_hub.training.data.segmentation import (
    CLASS_LISTS,
    WorldSegmentation,
    build_segmentation_dataset,
    label_histogram,
)
from midway_hub.training.data.synthetic import TextureSettings, WorldSettings, held_out_seeds

ADE = CLASS_LISTS["ade20k"].names


def tree(root, *maps):
    """A `folder` data set of one picture per label map."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    for number, values in enumerate(maps):
        labels = np.array([values], dtype=np.uint8)
        Image.fromarray(np.zeros((*labels.shape, 3), dtype=np.uint8)).save(root / f"images/{number}.png")
        Image.fromarray(labels).save(root / f"labels/{number}.png")
    return root


def report(root, *maps, limit=None, **options):
    return label_histogram(build_segmentation_dataset("folder", tree(root, *maps), **options), limit)


def row(histogram, value):
    return next(item for item in histogram.values if item.value == str(value))


def about(histogram, *words):
    return [warning for warning in histogram.warnings if all(word in warning for word in words)]


def test_every_value_is_counted_in_pixels_and_pictures(tmp_path):
    found = report(tmp_path, [0, 0, 1, 255], [0, 18, 18, 18])
    counted = {item.value: (item.name, item.label, item.pixels, item.pictures) for item in found.values if item.pixels}
    assert counted == {
        **{"0": ("road", 0, 3, 2), "1": ("sidewalk", 1, 1, 1), "18": ("bicycle", 18, 3, 1)},
        "255": ("(ignored)", 255, 1, 1),
    }
    assert row(found, 0).share == 3 / 8


def test_labels_in_order_raise_no_suspicion(tmp_path):
    found = report(tmp_path, [*range(19), 255])
    assert found.warnings == ()
    assert "nothing looks wrong" in found.table()


def test_labels_one_too_high_are_noticed(tmp_path):
    found = report(tmp_path, list(range(1, 20)))
    assert about(found, "one too high", "'road' (0) is in no picture", "value 19", "zero_is_ignored")


def test_values_of_no_class_are_counted_rather_than_raised(tmp_path):
    found = report(tmp_path, [0, 0, 0, 40])
    assert (row(found, 40).name, row(found, 40).label) == ("(no class)", None)
    assert about(found, "25.00% of the pixels have values of no class (40), which stop training")


def test_label_ids_read_as_train_ids_are_noticed(tmp_path):
    assert about(report(tmp_path, [7, 8, 11, 26, 33]), "encoding=cityscapes_label_ids")


def test_train_ids_read_as_label_ids_are_noticed(tmp_path):
    found = report(tmp_path, [*range(19), 255], encoding="cityscapes_label_ids")
    assert about(found, "nothing from 19 to 33", "encoding=train_ids")


def test_ade20k_files_read_as_train_ids_are_noticed(tmp_path):
    assert about(report(tmp_path, [0, 1, 4], classes="ade20k"), "0 is read as 'wall'", "zero_is_ignored")


def test_labels_reduced_already_are_noticed(tmp_path):
    found = report(tmp_path, [0, 1, 149, 255], classes="ade20k", encoding="zero_is_ignored")
    assert about(found, "255 beside the ignored 0", "encoding=train_ids")


def test_ade20k_files_read_as_they_are_meant_raise_no_suspicion_but_of_absent_classes(tmp_path):
    found = report(tmp_path, [0, *range(1, 150)], classes="ade20k", encoding="zero_is_ignored")
    assert found.warnings == ("1 class with no pixel in the data set: flag",)


@pytest.mark.parametrize(("ignored", "noticed"), [(5, False), (6, True)])
def test_more_ignored_than_labelled_pixels_are_noticed(tmp_path, ignored, noticed):
    found = report(tmp_path, [255] * ignored + [0] * (10 - ignored))
    assert bool(about(found, "60.0% of the pixels are ignored")) == noticed


def test_absent_classes_are_counted_and_named(tmp_path):
    found = report(tmp_path, [0, 1], classes=["a", "b", "c", "d"])
    assert about(found, "2 classes with no pixel in the data set: c, d")
    assert row(found, 3).pixels == 0


def test_maps_in_which_nothing_counts_are_counted_and_named(tmp_path):
    found = report(tmp_path, [255, 255], [0, 255], [255, 255])
    assert found.all_ignored == ("0", "2")
    assert about(found, "2 pictures in which every pixel is ignored: 0, 2")


def test_maps_that_cannot_be_read_are_counted_and_named(tmp_path):
    dataset = build_segmentation_dataset("folder", tree(tmp_path, [0], [0]))
    (tmp_path / "labels/1.png").write_bytes(b"nonsense")
    found = label_histogram(dataset)
    assert about(found, "1 label map that cannot be read", "labels/1.png")
    assert row(found, 0).pixels == 1


def test_a_data_set_of_which_nothing_can_be_read_is_no_clean_bill(tmp_path):
    dataset = build_segmentation_dataset("folder", tree(tmp_path, [0]))
    (tmp_path / "labels/0.png").unlink()
    assert about(label_histogram(dataset), "no label could be read")


def test_colours_are_counted_by_their_names(tmp_path):
    dataset = build_segmentation_dataset("folder", tree(tmp_path, [0]), encoding="colours")
    Image.fromarray(np.array([[(128, 64, 128), (1, 2, 3)]], dtype=np.uint8)).save(tmp_path / "labels/0.png")
    found = label_histogram(dataset)
    assert row(found, "#804080").name == "road"
    assert about(found, "#010203", "which stop training")


def test_a_limit_spreads_over_the_data_set(tmp_path):
    found = report(tmp_path, *([number] for number in range(9)), limit=3)
    assert [item.value for item in found.values if item.pixels] == ["0", "4", "8"]
    assert (found.looked_at, found.pictures) == (3, 9)
    assert about(found, "16 classes with no pixel in the 3 pictures looked at")


def test_a_limit_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="limit is a number of pictures of at least 1, got 0"):
        report(tmp_path, [0], limit=0)


def test_progress_is_told(tmp_path):
    told = []
    dataset = build_segmentation_dataset("folder", tree(tmp_path, [0], [1]))
    label_histogram(dataset, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_the_report_is_plain_data_and_text(tmp_path):
    found = report(tmp_path, [0, 19])
    assert json.loads(json.dumps(found.to_dict()))["looked_at"] == 1
    assert "read as train_ids" in found.table()
    assert "traffic light" in found.table()
    assert "\n! 50.00% of the pixels have values of no class (19)" in found.table()


def test_worlds_are_counted_by_their_class_numbers():
    settings = WorldSettings(size=(32, 32), textures=TextureSettings(tiles=4, tile_size=32))
    dataset = WorldSegmentation(settings, held_out_seeds(2))
    found = label_histogram(dataset)
    labels = np.stack([dataset[0].labels, dataset[1].labels])
    assert [item.pixels for item in found.values] == np.bincount(labels.ravel(), minlength=9).tolist()


def test_real_ade20k_files_pass_by_their_encoding_and_not_as_train_ids(shared):
    root = shared / "data/segmentation/ade20k"
    right = build_segmentation_dataset("ade20k/val", root, images="images", labels="labels")
    wrong = build_segmentation_dataset("ade20k/val", root, images="images", labels="labels", encoding="train_ids")
    assert [warning for warning in label_histogram(right).warnings if "with no pixel" not in warning] == []
    assert about(label_histogram(wrong), "0 is read as 'wall'")


def test_real_camvid_files_show_their_void(shared):
    root = shared / "data/segmentation/camvid"
    found = label_histogram(build_segmentation_dataset("folder", root, classes="camvid"))
    assert about(found, "(11)", "if 11 is void, ignore=[11]")
    fine = label_histogram(build_segmentation_dataset("folder", root, classes="camvid", ignore=[11]))
    assert fine.warnings == ("1 class with no pixel in the data set: fence",)
