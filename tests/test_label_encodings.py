"""What label files hold, and which class numbers come of it."""

import pickle

import numpy as np
import pytest

from midway_hub.training.data.segmentation import CLASS_LISTS, ENCODINGS, LabelError, class_list
from midway_hub.training.data.segmentation.classes import distinct_colours

STREET = CLASS_LISTS["cityscapes"]
ADE = CLASS_LISTS["ade20k"]

# As cityscapesScripts lists them: (name, id, train id), the train id 255 where the class is not evaluated.
CITYSCAPES_TABLE = """
unlabeled 0 255, ego vehicle 1 255, rectification border 2 255, out of roi 3 255, static 4 255, dynamic 5 255,
ground 6 255, road 7 0, sidewalk 8 1, parking 9 255, rail track 10 255, building 11 2, wall 12 3, fence 13 4,
guard rail 14 255, bridge 15 255, tunnel 16 255, pole 17 5, polegroup 18 255, traffic light 19 6, traffic sign 20 7,
vegetation 21 8, terrain 22 9, sky 23 10, person 24 11, rider 25 12, car 26 13, truck 27 14, bus 28 15,
caravan 29 255, trailer 30 255, train 31 16, motorcycle 32 17, bicycle 33 18
"""


def encode(name, classes, **options):
    return ENCODINGS[name](classes, **options)


def every_value(*values):
    return np.array([values], dtype=np.uint8)


def test_train_ids_stay_what_they_are():
    raw = every_value(*range(19), 255)
    assert np.array_equal(encode("train_ids", STREET)(raw), raw)


def test_zero_is_ignored_does_what_reduce_zero_label_does():
    raw = every_value(*range(151), 255)
    reduced = raw.copy()  # step by step, as mmsegmentation does it in 8 bits
    reduced[reduced == 0] = 255
    reduced = reduced - 1
    reduced[reduced == 254] = 255
    assert np.array_equal(encode("zero_is_ignored", ADE)(raw), reduced)


def test_label_ids_of_cityscapes_become_train_ids():
    entries = [entry.rsplit(maxsplit=2) for entry in CITYSCAPES_TABLE.replace("\n", " ").split(",")]
    labels = encode("cityscapes_label_ids", STREET)(every_value(*(int(number) for _, number, _ in entries)))
    assert labels[0].tolist() == [int(train_id) for _, _, train_id in entries]


def test_label_ids_belong_to_the_classes_that_the_table_names():
    entries = [entry.rsplit(maxsplit=2) for entry in CITYSCAPES_TABLE.replace("\n", " ").split(",")]
    names = {int(train_id): name.strip() for name, _, train_id in entries if train_id != "255"}
    assert STREET.names == tuple(names[label] for label in range(19))


def test_colours_give_the_class_that_has_them():
    raw = np.array([[STREET.palette[4], STREET.palette[13], (0, 0, 0)]], dtype=np.uint8)
    assert encode("colours", STREET)(raw).tolist() == [[4, 13, 255]]


def test_a_class_that_is_black_is_a_class():
    classes = class_list(["nothing", "thing"], [(0, 0, 0), (255, 0, 0)])
    assert encode("colours", classes)(np.zeros((1, 1, 3), dtype=np.uint8)).tolist() == [[0]]


def test_further_values_can_be_ignored():
    assert encode("train_ids", STREET, ignore=[19, 254])(every_value(3, 19, 254)).tolist() == [[3, 255, 255]]


def test_a_class_can_be_ignored():
    assert encode("train_ids", STREET, ignore=[0])(every_value(0, 1)).tolist() == [[255, 1]]


def test_labels_come_as_bytes_of_the_size_that_came_in():
    labels = encode("zero_is_ignored", ADE)(np.ones((3, 7), dtype=np.uint8))
    assert labels.dtype == np.uint8
    assert labels.shape == (3, 7)


@pytest.mark.parametrize(
    ("encoding", "classes", "raw", "message"),
    [
        ("train_ids", STREET, (0, 19, 19), r"1 value of no class: 19 at 2 pixels; .*one too high.*zero_is_ignored"),
        ("train_ids", STREET, (7, 26, 33), r"2 values of no class: 26 at 1 pixels, 33 .*cityscapes_label_ids"),
        ("train_ids", STREET, (0, 254), r"254 is left of 255 where 1 was subtracted.*ignore=\[254\]"),
        ("train_ids", STREET, (0, 100), r"the 19 classes are 0 to 18; is the list of classes"),
        ("zero_is_ignored", ADE, (0, 151), r"151 at 1 pixels; with zero_is_ignored the 150 classes are 1 to 150"),
        ("cityscapes_label_ids", STREET, (7, 40), r"40 at 1 pixels; label ids are 0 to 33.*instanceIds"),
        ("train_ids", STREET, range(60, 80), r"20 values of no class: .*64 at 1 pixels and 15 more"),
    ],
)
def test_values_of_no_class_are_refused_with_the_likely_mistake(encoding, classes, raw, message):
    with pytest.raises(LabelError, match=message):
        encode(encoding, classes)(every_value(*raw))


def test_colours_of_no_class_are_refused_by_their_name():
    with pytest.raises(LabelError, match=r"1 value of no class: #010203 at 4 pixels; .*resized, blended"):
        encode("colours", STREET)(np.full((2, 2, 3), (1, 2, 3), dtype=np.uint8))


def test_colours_that_two_classes_share_tell_nothing():
    with pytest.raises(ValueError, match="'road' and 'skyscraper' share the colour #8c8c8c"):
        encode("colours", ADE)


def test_label_ids_need_the_19_classes():
    with pytest.raises(ValueError, match="is of 19 classes, got 150"):
        encode("cityscapes_label_ids", ADE)


@pytest.mark.parametrize(
    ("encoding", "raw", "message"),
    [
        ("train_ids", np.zeros((2, 2, 3), np.uint8), r"reads \(H, W\) numbers in uint8, got \(2, 2, 3\) uint8"),
        ("train_ids", np.zeros((2, 2), np.int64), r"got \(2, 2\) int64"),
        ("colours", np.zeros((2, 2), np.uint8), r"reads \(H, W, 3\) colours in uint8, got \(2, 2\) uint8"),
    ],
)
def test_arrays_of_another_form_are_refused(encoding, raw, message):
    with pytest.raises(ValueError, match=message):
        encode(encoding, STREET)(raw)


@pytest.mark.parametrize("ignore", [[-1], [256]])
def test_ignored_values_are_bytes(ignore):
    with pytest.raises(ValueError, match=r"ignore names values from 0 to 255, got \[(-1|256)\]"):
        encode("train_ids", STREET, ignore=ignore)


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_encodings_survive_pickling(name):
    made = encode(name, STREET)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(("name", "count"), [("ade20k", 150), ("bdd100k", 19), ("camvid", 11), ("world", 9)])
def test_lists_have_their_number_of_classes(name, count):
    assert len(class_list(name)) == len(class_list(name).palette) == count


@pytest.mark.parametrize(
    ("label", "name", "colour"),
    [
        *((0, "wall", (120, 120, 120)), (12, "person", (150, 5, 61)), (20, "car", (0, 102, 200))),
        *((89, "television receiver", (0, 255, 194)), (149, "flag", (92, 0, 255))),
    ],
)
def test_ade20k_has_its_classes_in_order(label, name, colour):
    assert (ADE.names[label], ADE.palette[label]) == (name, colour)


def test_lists_of_ones_own_get_colours_that_differ():
    classes = class_list([f"thing {number}" for number in range(255)])
    assert len(set(classes.palette)) == 255
    assert distinct_colours(2) == ((128, 0, 0), (0, 128, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cityscape",), "unknown class list 'cityscape'; did you mean 'cityscapes'"),
        ((["road"],), "2 to 255 classes .* got 1"),
        ((["road", "sky", "road"],), "but road is there more than once"),
        ((["road", "sky"], [(1, 2, 3)]), "2 classes need as many colours, got 1"),
        ((["road", "sky"], [(1, 2, 3), (1, 2, 300)]), r"from 0 to 255, got \(1, 2, 300\)"),
    ],
)
def test_lists_that_do_not_work_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        class_list(*arguments)
