"""Evaluating segmentation: what is compared, what is written, and what is refused."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_tiny_net
from evaluation_sets import InMemory, labelled_pictures
from typer.testing import CliRunner

from midway_hub import MidwayNetwork
from midway_hub.models.network import MissingHeadError
from midway_hub.outputs import SegmentationOutput
from midway_hub.training.__main__ import app
from midway_hub.training.data.segmentation.classes import class_list
from midway_hub.training.data.segmentation.pipeline import SegmentationPipeline, resize_for_test
from midway_hub.training.data.segmentation.sample import LabelledImage
from midway_hub.training.data.synthetic import CLASSES as WORLD_CLASSES
from midway_hub.training.data.synthetic import PALETTE as WORLD_PALETTE
from midway_hub.training.evaluation.pixels import network_input
from midway_hub.training.evaluation.probes import segmentation_probe
from midway_hub.training.evaluation.records import RecordMismatchError
from midway_hub.training.evaluation.segmentation.agreement import ClassMismatchError, check_classes
from midway_hub.training.evaluation.segmentation.evaluate import evaluate_segmentation, predict_labels
from midway_hub.training.evaluation.segmentation.pictures import overlay, segmentation_strip
from midway_hub.training.evaluation.segmentation.tables import class_table, segmentation_table

CLASSES = ("sky", "tree", "house")
PALETTE = ((10, 20, 200), (20, 200, 30), (200, 30, 30))


def make_net(classes=CLASSES, palette=PALETTE, **head):
    return make_tiny_net(segmentation_head={"classes": classes, "palette": palette, **head})


@pytest.fixture(scope="module")
def net():
    return make_net()


def pictures(count=3, *, classes=CLASSES, **options):
    return InMemory(labelled_pictures(count, classes=len(classes)), classes=classes, **options)


class ByBrightness(MidwayNetwork):
    """A network that calls dark pixels class 0, middle ones 1 and bright ones 2, and remembers what it was asked."""

    def segment(self, images, *, slide="default"):
        self.asked = {"size": tuple(images.shape[-2:]), "slide": slide}
        brightness = images.mean(dim=1, keepdim=True)
        logits = torch.cat([-brightness, 0.5 - brightness.abs(), brightness], dim=1)
        return SegmentationOutput(logits=logits, labels=logits.argmax(dim=1), classes=CLASSES, palette=PALETTE)


@pytest.fixture
def by_brightness():
    network = make_net()
    network.__class__ = ByBrightness
    return network


def test_a_network_that_is_right_everywhere_reaches_100(by_brightness):
    labels = np.random.default_rng(0).integers(0, 3, (40, 56)).astype(np.uint8)
    image = np.array([0, 115, 255], np.uint8)[labels][..., None].repeat(3, axis=-1)
    numbers = evaluate_segmentation(
        by_brightness, InMemory([LabelledImage(image, labels, "x")], classes=CLASSES)
    ).numbers
    assert (numbers.miou, numbers.accuracy, numbers.class_accuracy) == (100, 100, 100)


def test_logits_are_resized_to_the_labels_before_the_most_likely_class_is_taken(by_brightness):
    sample = labelled_pictures(1)[0]
    pipeline = SegmentationPipeline(scale=(84, 60))
    found = predict_labels(by_brightness, sample, pipeline, slide=None)
    resized = resize_for_test(sample.image, pipeline)
    assert by_brightness.asked["size"] == resized.shape[:2] == (60, 84)
    logits = by_brightness.segment(network_input(resized)).logits
    expected = F.interpolate(logits, (40, 56), mode="bilinear", align_corners=False).argmax(dim=1)[0]
    np.testing.assert_array_equal(found, expected.numpy())
    nearest = F.interpolate(logits.argmax(dim=1)[None].float(), (40, 56))[0, 0]
    assert (found != nearest.numpy()).any()


def test_without_a_pipeline_pictures_keep_their_size(by_brightness):
    evaluate_segmentation(by_brightness, pictures(1))
    assert by_brightness.asked["size"] == (40, 56)


@pytest.mark.parametrize(("asked", "used"), [("default", (64, 32)), (None, None), ((48, 16), (48, 16))])
def test_the_window_is_the_heads_unless_another_is_asked_for(asked, used):
    network = make_net(slide=(64, 32))
    network.__class__ = ByBrightness
    result = evaluate_segmentation(network, pictures(1), slide=asked)
    assert network.asked["slide"] == used
    assert result.settings["slide"] == (None if used is None else list(used))


def test_the_folder_holds_numbers_with_everything_they_depend_on(net, tmp_path):
    result = evaluate_segmentation(net, pictures(), SegmentationPipeline(scale=(84, 60)), out=tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["settings"]["scale"] == [84, 60]
    assert (written["settings"]["head"], written["settings"]["layers"]) == ("linear", [-1])
    assert (written["settings"]["dtype"], written["settings"]["device"]) == ("float32", "cpu")
    assert len(written["settings"]["sha256"]) == 64
    assert written["numbers"]["miou"] == result.numbers.miou
    assert written["protocol"]["classes"] == list(CLASSES)
    assert "torch" in written["versions"]


def test_the_numbers_of_a_network_are_those_of_its_labels(net):
    data = pictures()
    result = evaluate_segmentation(net, data)
    right = total = 0
    for sample in data.samples:
        labels = net.segment(network_input(sample.image)).labels[0].numpy()
        scored = sample.labels != 255
        right, total = right + (labels == sample.labels)[scored].sum(), total + scored.sum()
    assert result.numbers.accuracy == pytest.approx(100 * right / total)


def test_an_interrupted_evaluation_goes_on_where_it_was(net, tmp_path):
    evaluate_segmentation(net, pictures(), out=tmp_path, limit=1, pictures=0)
    data = pictures()
    result = evaluate_segmentation(net, data, out=tmp_path, pictures=0)
    assert data.reads == [0, 1, 1]
    assert str(result.numbers) == str(evaluate_segmentation(net, pictures()).numbers)


def test_another_configuration_in_the_folder_is_refused_with_the_difference(net, tmp_path):
    evaluate_segmentation(net, pictures(), out=tmp_path)
    with pytest.raises(RecordMismatchError, match=r"network\.slide: None in the folder, \[48, 16\] now"):
        evaluate_segmentation(net, pictures(), slide=(48, 16), out=tmp_path)


def test_another_number_of_classes_is_an_error_that_names_both(net):
    data = pictures(classes=(*CLASSES, "unicorn"))
    wanted = r"the head tells 3 classes apart, in/memory has 4: the head lacks unicorn and has besides none"
    with pytest.raises(ClassMismatchError, match=wanted):
        evaluate_segmentation(net, data)
    assert data.reads == [0, 0, 0]


def test_the_same_classes_in_another_order_are_an_error():
    with pytest.raises(ClassMismatchError, match=r"another order: 0 is 'sky' in the head, 'tree' in x, 1 is 'tree'"):
        check_classes(("sky", "tree"), ("tree", "sky"), name="x")


def test_classes_of_other_names_are_a_warning_that_lists_them(net, caplog):
    with caplog.at_level(logging.WARNING, logger="midway_hub"):
        result = evaluate_segmentation(net, pictures(1, classes=("sky", "plant", "house")))
    assert result.differing_names == ["1 is 'tree' in the head, 'plant' in in/memory"]
    assert "'tree' in the head, 'plant' in in/memory" in caplog.text


def test_a_network_without_a_segmentation_head_says_what_to_do(tiny_net):
    with pytest.raises(MissingHeadError, match="training segmentation RECIPE"):
        evaluate_segmentation(tiny_net, pictures())


def test_missing_files_are_named_before_anything_is_measured(net):
    with pytest.raises(FileNotFoundError, match=r"in/memory lacks 1 files:\n  a\.png"):
        evaluate_segmentation(net, pictures(missing=["a.png"]))


def test_tables_have_the_numbers_and_a_row_per_class(net):
    result = evaluate_segmentation(net, pictures())
    table, classes = segmentation_table(result), class_table(result)
    assert table.rows[0] == [
        "linear",
        "own size, whole",
        *(f"{value:.2f}" for value in (result.numbers.miou, result.numbers.accuracy, result.numbers.class_accuracy)),
    ]
    assert [row[0] for row in classes.rows] == list(CLASSES)
    assert sum(float(row[-1]) for row in classes.rows) == pytest.approx(100, abs=0.02)


def test_pictures_are_drawn_of_some(net, tmp_path):
    evaluate_segmentation(net, pictures(4), out=tmp_path, pictures=2)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["000000.png", "000002.png"]


def test_an_overlay_mixes_the_classes_colours_and_leaves_ignored_pixels_grey():
    image = np.full((1, 3, 3), 100, np.uint8)
    laid = np.asarray(overlay(image, np.array([[0, 2, 255]], np.uint8), PALETTE))
    np.testing.assert_array_equal(laid[0, 2], (100, 100, 100))
    for place, label in ((0, 0), (1, 2)):
        np.testing.assert_allclose(laid[0, place], 0.4 * 100 + 0.6 * np.array(PALETTE[label]), atol=1)


def test_the_legend_shows_the_colours_of_classes_that_occur_and_no_others():
    sample = LabelledImage(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), "x")
    drawn = np.asarray(segmentation_strip(sample, np.full((20, 30), 1), classes=CLASSES, palette=PALETTE, width=60))
    legend = {tuple(colour) for colour in drawn[26 + 40 :].reshape(-1, 3).tolist()}
    assert PALETTE[0] in legend
    assert PALETTE[1] in legend
    assert PALETTE[2] not in legend


def test_the_probe_gives_what_the_evaluation_gives(net):
    found = segmentation_probe(pictures(), limit=2)(net)
    numbers = evaluate_segmentation(net, InMemory(pictures().samples[:2], classes=CLASSES)).numbers
    assert found == {
        "segmentation/miou": numbers.miou,
        "segmentation/accuracy": numbers.accuracy,
        "segmentation/class_accuracy": numbers.class_accuracy,
    }


def test_the_probe_refuses_a_head_of_other_classes(net):
    with pytest.raises(ClassMismatchError):
        segmentation_probe(pictures(classes=CLASSES[:2]))(net)


# -- the command -------------------------------------------------------------------------------------------------------

WORLDS = (
    *("--dataset", "world", "--worlds", "2", "--world-size", "48x64"),
    *("--set", "textures.tiles=4", "--set", "textures.tile_size=64"),
)


def command(*arguments):
    ran = CliRunner().invoke(app, ["evaluate", "segmentation", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "segmentation"
    make_net(WORLD_CLASSES, WORLD_PALETTE).save_pretrained(folder)
    return folder


def test_the_command_measures_a_checkpoint_on_held_out_worlds(checkpoint, tmp_path):
    code, out, err = command(*WORLDS, "-m", checkpoint, "--slide", "48x32", "-o", tmp_path)
    assert code == 0, err
    assert "world, 2 pictures" in out
    assert all(name in out for name in WORLD_CLASSES)
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["slide"] == [48, 32]


def test_the_command_prints_one_json_document(checkpoint):
    code, out, err = command(*WORLDS, "-m", checkpoint, "--scale", "96x64", "--slide", "whole", "--json")
    assert code == 0, err
    assert json.loads(out)["settings"]["scale"] == [96, 64]


def test_the_command_reads_a_folder_of_pictures_and_labels(checkpoint, tmp_path):
    from PIL import Image

    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for sample in labelled_pictures(2, classes=len(WORLD_CLASSES)):
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.name}.png")
        Image.fromarray(sample.labels).save(tmp_path / "labels" / f"{sample.name}.png")
    code, out, err = command(
        "--dataset", "folder", "--root", tmp_path, "-s", "classes=world", "-m", checkpoint, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["pictures"] == 2


def test_real_camvid_pictures_are_measured_and_drawn(shared, tmp_path):
    camvid = class_list("camvid")
    make_net(camvid.names, camvid.palette).save_pretrained(tmp_path / "net")
    code, out, err = command(
        *("--dataset", "folder", "--root", shared / "data/segmentation/camvid", "-s", "classes=camvid"),
        *("-s", "ignore=[11]", "-m", tmp_path / "net", "--scale", "160x120", "--limit", 2, "--pictures", 1),
        *("-o", tmp_path / "out"),
    )
    assert code == 0, err
    assert "2 of 5 pictures" in out
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())["numbers"]
    assert sum(numbers["pixels"].values()) > 2 * 0.8 * 360 * 480
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 1


def test_the_command_refuses_a_head_of_other_classes_on_one_line(tmp_path):
    make_net().save_pretrained(tmp_path / "three")
    code, _, err = command(*WORLDS, "-m", tmp_path / "three")
    assert code == 1
    assert f"the head tells 3 classes apart, world has {len(WORLD_CLASSES)}" in " ".join(err.split())
