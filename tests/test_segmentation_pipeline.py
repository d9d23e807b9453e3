"""Resizing, cropping and colours before training, against OpenCV and formulas of their own."""

import colorsys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from midway_hub.processing import Normalisation
from midway_hub.training.data.segmentation import (
    LabelledImage,
    SegmentationPipeline,
    augment_segmentation,
    resize_for_test,
)
from midway_hub.training.data.segmentation.crop import choose_crop
from midway_hub.training.data.segmentation.photometric import change_colours, distort, hsv_to_rgb, rgb_to_hsv
from midway_hub.training.data.segmentation.pipeline import PADDING, padding_for
from midway_hub.training.data.segmentation.resize import rescaled_size, resize_bilinear, resize_nearest
from midway_hub.training.data.views.normalise import normalise
from midway_hub.training.tasks.segmentation_data import SegmentationData, SegmentationExamples
from midway_hub.training.timeline import Timeline

STILL = SegmentationPipeline(
    scale=(40, 30), ratio_range=(1, 1), crop=(30, 40), cat_max_ratio=1, flip=0, photometric=False
)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(height, width, seed=0):
    return rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height, width):
    """A picture whose red and green say where a pixel is from, and labels that say the column."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return LabelledImage(image, columns.astype(np.uint8), "coordinates")


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((720, 1280), (2048, 1024), (1024, 1820)),  # BDD100K
        ((1024, 2048), (2048, 1024), (1024, 2048)),  # Cityscapes
        ((512, 683), (2048, 512), (512, 683)),
        ((364, 500), (2048, 512), (512, 703)),
        ((100, 1000), (2048, 512), (205, 2048)),  # the long side decides
        ((1280, 720), (2048, 1024), (1820, 1024)),
    ],
)
def test_sizes_keep_proportions_by_the_rule_of_mmcv(size, scale, expected):
    assert rescaled_size(*size, scale) == expected


def test_testing_resizes_the_picture_whole():
    image = noise(72, 128)
    assert resize_for_test(image, SegmentationPipeline(scale=(205, 102))).shape == (102, 181, 3)


@pytest.mark.parametrize("size", [(31, 47), (90, 130), (30, 40), (15, 20), (60, 80), (100, 23), (1, 1)])
def test_pictures_are_resized_as_opencv_does_to_the_bit(size):
    cv2 = pytest.importorskip("cv2")
    image = noise(30, 40)
    assert np.array_equal(resize_bilinear(image, size), cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("size", [(31, 47), (90, 130), (15, 20), (20, 25), (100, 23)])
def test_labels_are_resized_as_opencv_does(size):
    cv2 = pytest.importorskip("cv2")
    labels = noise(36, 40)[..., 0]
    assert np.array_equal(resize_nearest(labels, size), cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST))


@pytest.mark.parametrize("size", [(31, 47), (90, 130), (15, 20)])
def test_pictures_are_resized_within_a_grey_level_of_torch(size):
    image = noise(30, 40)
    channels = torch.from_numpy(image).double().permute(2, 0, 1)[None]
    exact = torch.nn.functional.interpolate(channels, size, mode="bilinear", align_corners=False)
    assert np.abs(resize_bilinear(image, size) - exact[0].permute(1, 2, 0).numpy()).max() < 1


def test_labels_of_a_resized_map_are_labels_of_the_map():
    labels = np.array([[0, 255], [7, 18]], dtype=np.uint8)
    assert np.array_equal(resize_nearest(labels, (4, 6)), labels.repeat(2, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("size", [(61, 83), (17, 22)])
def test_a_window_of_a_resized_picture_is_cut_out_of_it(size):
    image = noise(30, 40)
    window = slice(5, 12), slice(11, 20)
    part = resize_bilinear(image, size, rows=window[0], columns=window[1])
    assert np.array_equal(part, resize_bilinear(image, size)[window])


def test_hue_saturation_and_value_are_those_of_opencv_to_the_bit():
    cv2 = pytest.importorskip("cv2")
    image = noise(300, 300)
    image[:100] //= 32  # dark and grey colours, where hues are coarse
    assert np.array_equal(rgb_to_hsv(image), cv2.cvtColor(image, cv2.COLOR_RGB2HSV))


def test_colours_of_hue_saturation_and_value_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    hsv = noise(320, 320)
    hsv[..., 0] %= 180
    difference = np.abs(hsv_to_rgb(hsv).astype(int) - cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    assert difference.max() <= 1
    # OpenCV's vector code cuts off, its scalar code, which some builds run, rounds.
    assert (difference > 0).mean() < 0.4


def test_hue_saturation_and_value_mean_what_they_say():
    image = noise(30, 30)
    hsv = rgb_to_hsv(image).reshape(-1, 3) / (180, 255, 255)
    exact = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255])
    turned = np.abs(hsv[:, 0] - exact[:, 0])
    assert np.minimum(turned, 1 - turned).max() <= 1 / 180
    assert np.abs(hsv[:, 1:] - exact[:, 1:]).max() <= 1 / 255


def test_colours_of_hue_saturation_and_value_are_cut_off_to_whole_numbers():
    hsv = noise(30, 30)
    hsv[..., 0] %= 180
    exact = 255 * np.array([colorsys.hsv_to_rgb(h / 180, s / 255, v / 255) for h, s, v in hsv.reshape(-1, 3).tolist()])
    difference = exact - hsv_to_rgb(hsv).reshape(-1, 3)
    assert difference.min() > -1e-3
    assert difference.max() < 1 + 1e-3


def test_colours_come_back_from_hsv_but_for_rounding():
    image = noise(40, 40)
    assert np.abs(hsv_to_rgb(rgb_to_hsv(image)).astype(int) - image).max() <= 8


def test_a_third_of_a_turn_makes_red_green():
    red = np.full((2, 2, 3), (200, 0, 0), dtype=np.uint8)
    assert (change_colours(red, None, 60) == (0, 200, 0)).all()


def test_saturation_zero_leaves_the_brightest_channel():
    image = noise(8, 8)
    assert np.array_equal(change_colours(image, 0.0, None), image.max(axis=2, keepdims=True).repeat(3, axis=2))


class Scripted:
    """A generator that gives what it is told, and remembers the ranges it was asked for."""

    def __init__(self, coins, numbers=()):
        self.coins, self.numbers, self.asked = list(coins), list(numbers), []

    def integers(self, low, high=None):
        if high is None:
            return self.coins.pop(0)
        self.asked.append((low, high))
        return self.numbers.pop(0)

    def uniform(self, low, high):
        self.asked.append((low, high))
        return self.numbers.pop(0)


# Coins: brightness?, contrast first?, (contrast?), saturation?, hue?, (contrast?)
@pytest.mark.parametrize(
    ("coins", "asked"),
    [
        ((1, 0, 0, 0, 0), [(-32, 32)]),
        ((0, 1, 1, 0, 0), [(0.5, 1.5)]),
        ((0, 0, 1, 0, 0), [(0.5, 1.5)]),
        ((0, 0, 0, 1, 0), [(-18, 18)]),
        ((1, 1, 1, 1, 1), [(-32, 32), (0.5, 1.5), (0.5, 1.5), (-18, 18)]),
        ((0, 0, 0, 0, 0), []),
    ],
)
def test_each_change_is_drawn_from_the_range_of_mmsegmentation(coins, asked):
    generator = Scripted(coins, [1] * len(asked))
    distort(noise(2, 2), generator)
    assert (generator.asked, generator.coins) == (asked, [])


def test_brightness_is_added_and_clipped():
    image = np.array([[(0, 100, 250)]], dtype=np.uint8)
    assert distort(image, Scripted((1, 0, 0, 0, 0), [20.7])).tolist() == [[[20, 120, 255]]]


@pytest.mark.parametrize("first", [True, False])
def test_contrast_comes_before_or_after_saturation(first):
    colour = np.array([200, 200, 128], dtype=np.uint8)  # its brightest channels are clipped by the contrast
    script = Scripted((0, 1, 1, 1, 0), [1.5, 2.0]) if first else Scripted((0, 0, 1, 0, 1), [2.0, 1.5])
    expected = _contrast_then_saturation(colour) if first else _saturation_then_contrast(colour)
    assert np.abs(distort(colour[None, None], script) - expected).max() < 3


def _contrast_then_saturation(colour):
    return _more_saturated(np.minimum(colour * 1.5, 255))


def _saturation_then_contrast(colour):
    return np.minimum(_more_saturated(colour.astype(float)) * 1.5, 255)


def _more_saturated(colour):
    hue, saturation, value = colorsys.rgb_to_hsv(*(colour / 255))
    return 255 * np.array(colorsys.hsv_to_rgb(hue, min(2 * saturation, 1), value))


def test_changes_happen_half_of_the_time():
    image = np.full((1, 1, 3), (90, 130, 170), dtype=np.uint8)
    generator = rng()
    unchanged = sum(np.array_equal(distort(image, generator), image) for _ in range(2000))
    assert 90 < unchanged < 190  # all four stay away in 1 of 16, that is 125; others change too little to be seen


def test_crops_in_which_one_class_takes_too_much_are_drawn_again():
    labels = np.zeros((40, 400), dtype=np.uint8)
    labels[:, 390:] = 1  # only crops at the right edge are mixed: 10 of their 20 columns
    shares = [labels[choose_crop(labels, (40, 20), 0.75, rng(seed))].mean() for seed in range(200)]
    once = [labels[choose_crop(labels, (40, 20), 1, rng(seed))].mean() for seed in range(200)]
    assert np.mean(np.array(shares) > 0.25) > 4 * np.mean(np.array(once) > 0.25)


class Counting:
    """A generator that counts what is drawn."""

    drawn = 0

    def integers(self, high):
        self.drawn += 1
        return self.drawn % high


def test_a_crop_is_drawn_ten_times_more_at_most():
    counting = Counting()
    rows, columns = choose_crop(np.zeros((8, 200), dtype=np.uint8), (8, 20), 0.75, counting)
    assert counting.drawn == 2 * 11
    assert (rows, columns) == (slice(0, 8), slice(22, 42))  # the last one drawn


def test_pixels_that_count_nowhere_have_no_share_in_a_crop():
    labels = np.full((10, 10), 255, dtype=np.uint8)
    labels[0, :2], labels[0, 2:4] = 3, 4

    counting = Counting()
    choose_crop(labels, (10, 10), 0.75, counting)
    assert counting.drawn == 2  # rows and columns of the first crop, which has half of each class


def test_a_crop_of_a_smaller_picture_is_all_of_it():
    assert choose_crop(np.zeros((8, 30), np.uint8), (16, 20), 1, rng())[0] == slice(0, 8)


def test_nothing_changes_a_picture_when_nothing_is_asked_for():
    sample = coordinates(30, 40)
    made = augment_segmentation(sample, STILL, rng())
    assert np.array_equal(made.image, sample.image)
    assert np.array_equal(made.labels, sample.labels)
    assert made.name == sample.name


def test_mirroring_turns_picture_and_labels_together():
    sample = coordinates(30, 40)
    made = augment_segmentation(sample, STILL.model_copy(update={"flip": 1.0}), rng())
    assert np.array_equal(made.labels, sample.labels[:, ::-1])
    assert np.array_equal(made.image[..., 1], made.labels)


def test_half_of_the_pictures_are_mirrored():
    settings = STILL.model_copy(update={"flip": 0.5})
    generator = rng()
    mirrored = sum(augment_segmentation(coordinates(3, 4), settings, generator).labels[0, 0] > 0 for _ in range(300))
    assert 110 < mirrored < 190


@pytest.mark.parametrize("seed", range(8))
def test_labels_stay_with_their_pixels_through_resizing_and_cropping(seed):
    settings = STILL.model_copy(update={"ratio_range": (0.5, 3.0), "crop": (16, 24), "flip": 0.5})
    made = augment_segmentation(coordinates(30, 40), settings, rng(seed))
    inside = made.labels != 255
    # Rounding down moves labels by up to one pixel of the original, bilinear means by up to half of one.
    assert np.abs(made.image[..., 1][inside].astype(int) - made.labels[inside]).max() <= 2


def test_small_pictures_are_padded_to_the_right_and_below():
    made = augment_segmentation(coordinates(30, 40), STILL.model_copy(update={"crop": (36, 50)}), rng())
    assert made.image.shape == (36, 50, 3)
    assert (made.image[30:] == PADDING).all()
    assert (made.image[:, 40:] == PADDING).all()
    assert np.array_equal(np.argwhere(made.labels != 255).max(axis=0), [29, 39])


def test_padding_is_next_to_nothing_after_normalisation():
    padding = torch.tensor(PADDING, dtype=torch.uint8).view(3, 1, 1)
    assert normalise(padding).abs().max() < 0.01


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 0.25, -0.1)])
def test_padding_is_what_another_normalisation_makes_nothing_of(mean):
    padding = padding_for(Normalisation(mean, (0.5, 0.5, 0.5)))
    assert padding == tuple(round(255 * max(value, 0)) for value in mean)
    settings = STILL.model_copy(update={"crop": (36, 50)})
    dataset = [coordinates(30, 40)]
    made = SegmentationData(pipeline=settings).batches(
        SegmentationExamples(dataset, settings),
        normalisation=Normalisation(mean, (0.5, 0.5, 0.5)),
        seed=0,
        timeline=Timeline(steps=1, steps_per_epoch=1, batch_size=1, visits_per_step=1),
    )
    assert (made.examples.example(0, rng())["image"][:, 35, 49] == padding).all()


def test_padding_keeps_its_colour_when_colours_are_distorted():
    settings = STILL.model_copy(update={"crop": (36, 50), "photometric": True})
    assert all(
        (augment_segmentation(coordinates(30, 40), settings, rng(s)).image[35, 49] == PADDING).all() for s in range(9)
    )


def test_crops_have_their_size_whatever_the_picture():
    settings = SegmentationPipeline(scale=(128, 64), crop=(48, 56))
    for seed, size in enumerate([(17, 90), (90, 17), (64, 128), (5, 5), (1, 300)]):
        sample = LabelledImage(noise(*size), rng(seed).integers(0, 3, size).astype(np.uint8), "noise")
        made = augment_segmentation(sample, settings, rng(seed))
        assert (made.image.shape, made.labels.shape) == ((48, 56, 3), (48, 56))
        assert made.image.flags.c_contiguous
        assert made.labels.flags.c_contiguous


def test_the_same_numbers_give_the_same_crop_and_others_another():
    sample = LabelledImage(noise(60, 80), rng().integers(0, 3, (60, 80)).astype(np.uint8), "noise")
    settings = SegmentationPipeline(scale=(128, 64), crop=(48, 48))
    one, again, other = (augment_segmentation(sample, settings, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)


def test_the_sample_itself_is_left_alone():
    sample = LabelledImage(noise(60, 80), np.zeros((60, 80), np.uint8), "noise")
    before = sample.image.copy()
    augment_segmentation(sample, SegmentationPipeline(scale=(128, 64), crop=(48, 48)), rng())
    assert np.array_equal(sample.image, before)


@pytest.mark.parametrize(
    "wrong",
    [{"ratio_range": (2, 1)}, {"ratio_range": (0, 1)}, {"crop": (0, 5)}, {"cat_max_ratio": 0}, {"flip": 2}, {"hue": 1}],
)
def test_settings_that_do_not_work_are_refused(wrong):
    with pytest.raises(ValidationError):
        SegmentationPipeline(**wrong)
