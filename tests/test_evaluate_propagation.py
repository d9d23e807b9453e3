"""Evaluating label propagation: what is read, what is measured, what is written, and what is refused."""

import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner

from midway_hub import MidwayNetwork
from midway_hub.analysis.propagation import propagate_labels
from midway_hub.analysis.propagation_frames import fitted_protocol
from midway_hub.analysis.propagation_protocols import CROPMAE, DINO, FrameSize, adjusted, find_protocol
from midway_hub.training.__main__ import app
from midway_hub.training.data.clip import SampleError
from midway_hub.training.evaluation.propagation.datasets import (
    VIP_CLASSES,
    davis_sequences,
    jhmdb_sequences,
    vip_sequences,
)
from midway_hub.training.evaluation.propagation.davis_scores import davis_scores, score_frame
from midway_hub.training.evaluation.propagation.encoders import (
    MeasuredEncoder,
    load_encoder,
    module_encoder,
    network_encoder,
)
from midway_hub.training.evaluation.propagation.evaluate import evaluate_propagation
from midway_hub.training.evaluation.propagation.measure import joint_positions
from midway_hub.training.evaluation.propagation.sequences import pictures_in, read_names
from midway_hub.training.evaluation.propagation.tables import propagation_table
from midway_hub.training.evaluation.propagation.timm_encoders import load_module
from midway_hub.training.evaluation.records import RecordMismatchError
from midway_hub.training.evaluation.segmentation.metrics import SegmentationMeter

HEIGHT, WIDTH = 64, 96
PROTOCOL = replace(DINO, size=FrameSize("exact", (HEIGHT, WIDTH)))
SMALL = ("--set", "size=short:64")


def by_place(frames):
    height, width = frames.shape[-2] // 16, frames.shape[-1] // 16
    return torch.eye(height * width).unflatten(0, (1, height, width)).permute(0, 3, 1, 2)


@pytest.fixture
def placed():
    return MeasuredEncoder("by place", by_place, {"weights": "none"}, torch.device("cpu"))


@pytest.fixture(scope="module")
def net():
    return make_tiny_net()


def save_frame(path, seed, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def save_labels(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


def stripes(*labels):
    """Vertical stripes as wide as two patches, which survive the patch grid and the way back unharmed."""
    return np.repeat(np.array(labels, np.uint8)[None], HEIGHT, axis=0).repeat(WIDTH // len(labels), axis=1)


@pytest.fixture
def davis(tmp_path):
    """Two videos of five frames: `still` whose frames and masks are all the same, `other` whose masks move."""
    root = tmp_path / "DAVIS"
    for name in ("other", "still"):
        for number in range(5):
            file = f"480p/{name}/{number:05d}"
            save_frame(root / f"JPEGImages/{file}.jpg", 0 if name == "still" else number)
            still = stripes(0, 3, 5)
            save_labels(
                root / f"Annotations/{file}.png", still if name == "still" else np.roll(still, 4 * number, axis=1)
            )
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("other\nstill\n")
    return root


@pytest.fixture
def vip(tmp_path):
    root = tmp_path / "VIP" / "VIP_Fine"
    for number in (1, 2, 10):
        save_frame(root / f"Images/videos7/{number:012d}.jpg", number)
    save_labels(root / "Annotations/Category_ids/videos7/000000000001.png", stripes(0, 4, 13))
    save_labels(root / "Annotations/Category_ids/videos7/000000000010.png", stripes(0, 4, 19))
    (root / "lists").mkdir()
    (root / "lists/val_videos.txt").write_text("videos7\n\n")
    return root.parent


def mat_file(array, name="pos_img"):
    """A MATLAB file of version 5, as its format describes it."""

    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack(f"<{array.ndim}i", *array.shape))
    body += element(1, name.encode()) + element(9, np.asarray(array, "<f8").tobytes(order="F"))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element(14, body)


@pytest.fixture
def jhmdb(tmp_path):
    root = tmp_path / "JHMDB"
    joints = np.zeros((2, 15, 4))
    joints[0], joints[1] = np.linspace(1, 81, 15)[:, None], np.linspace(1, 49, 15)[:, None]  # from 1, as MATLAB counts
    for name in ("walk/first", "walk/second", "run/third"):
        for number in range(1, 6):
            save_frame(root / f"Rename_Images/{name}/{number:05d}.png", number)
        (root / f"joint_positions/{name}").mkdir(parents=True)
        (root / f"joint_positions/{name}/joint_positions.mat").write_bytes(mat_file(joints))
    (root / "splits").mkdir()
    (root / "splits/walk_test_split1.txt").write_text("first.avi 1\nsecond.avi 2\n")
    (root / "splits/run_test_split1.txt").write_text("third.avi 2\n")
    (root / "splits/run_test_split2.txt").write_text("third.avi 1\n")
    return root


# -- reading -----------------------------------------------------------------------------------------------------------


def test_davis_is_read_as_its_list_says(davis):
    data = davis_sequences(davis)
    assert (data.name, len(data), data.expected, data.missing()) == ("davis2017/val", 2, 30, [])
    assert [item.name for item in data.sequences] == ["other", "still"]
    assert [path.name for path in data[0].frames] == [f"{n:05d}.jpg" for n in range(5)]
    assert sorted(data[0].labels) == list(range(5))


def test_what_davis_lacks_is_named(davis):
    (davis / "Annotations/480p/still/00003.png").unlink()
    (davis / "ImageSets/2017/val.txt").write_text("other\nstill\ngone\n")
    lost = davis_sequences(davis).missing()
    assert len(lost) == 2
    assert lost[0].endswith("JPEGImages/480p/gone/*.jpg")
    assert lost[1].endswith("480p/still/00003.png")


def test_a_folder_that_is_no_davis_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no list .*val\.txt of the videos"):
        davis_sequences(tmp_path)


def test_vip_is_read_from_either_folder_and_labels_only_some_frames(vip):
    for root in (vip, vip / "VIP_Fine"):
        data = vip_sequences(root)
        assert [path.stem.lstrip("0") for path in data[0].frames] == ["1", "2", "10"]
        assert sorted(data[0].labels) == [0, 2]
    assert len(VIP_CLASSES) == 20


def test_jhmdb_takes_the_test_videos_of_split_1(jhmdb):
    assert [item.name for item in jhmdb_sequences(jhmdb).sequences] == ["run/third", "walk/second"]
    for file in (jhmdb / "splits").iterdir():
        file.unlink()
    (jhmdb / "splits").rmdir()
    assert [item.name for item in jhmdb_sequences(jhmdb).sequences] == ["run/third", "walk/first", "walk/second"]


def test_joints_are_counted_from_0(jhmdb):
    joints = joint_positions(jhmdb / "joint_positions/run/third/joint_positions.mat")
    assert joints.shape == (4, 15, 2)
    np.testing.assert_allclose(joints[2, 0], [0, 0])
    np.testing.assert_allclose(joints[2, 14], [80, 48])


def test_a_file_of_other_joints_is_refused(tmp_path):
    (tmp_path / "a.mat").write_bytes(mat_file(np.zeros((2, 14, 5))))
    with pytest.raises(SampleError, match=r"pos_img must be \(2, 15, T\), it is \(2, 14, 5\)"):
        joint_positions(tmp_path / "a.mat")


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [PROTOCOL, replace(CROPMAE, size=PROTOCOL.size)], ids=lambda p: p.name)
def test_a_video_of_identical_frames_scores_100(placed, davis, protocol):
    (davis / "ImageSets/2017/val.txt").write_text("still\n")
    numbers = evaluate_propagation(placed, davis_sequences(davis), protocol).numbers
    assert (numbers.jf_mean, numbers.j.mean, numbers.f.mean) == (100, 100, 100)
    assert (numbers.j.recall, numbers.j.decay, numbers.objects) == (100, 0, 2)


def test_davis_numbers_are_those_of_all_frames_but_the_first_and_the_last(net, davis):
    encoder = network_encoder(net, name="tiny")
    found = evaluate_propagation(encoder, davis_sequences(davis), PROTOCOL).numbers
    objects = []
    for name in ("other", "still"):
        frames = sorted((davis / "JPEGImages/480p" / name).iterdir())
        truth = [np.array(Image.open(path)) for path in sorted((davis / "Annotations/480p" / name).iterdir())]
        labels = list(propagate_labels(encoder.encode, frames, truth[0], PROTOCOL))
        scores = [score_frame(labels[n], truth[n], [3, 5]) for n in (1, 2, 3)]
        objects += [{"j": [j[place] for j, _ in scores], "f": [f[place] for _, f in scores]} for place in (0, 1)]
    assert found == davis_scores(objects)
    assert 0 < found.jf_mean < 100


def test_vip_numbers_are_of_all_labelled_frames_pooled(placed, vip):
    result = evaluate_propagation(placed, vip_sequences(vip), PROTOCOL)
    meter = SegmentationMeter(VIP_CLASSES)
    meter.update(stripes(0, 4, 13), stripes(0, 4, 13))
    meter.update(stripes(0, 4, 13), stripes(0, 4, 19))
    assert result.numbers.miou == meter.result().miou == pytest.approx((100 + 100 + 50 + 0) / 4)


def test_jhmdb_numbers_are_of_all_frames_but_the_first(placed, jhmdb):
    protocol = replace(find_protocol("cropmae", dataset="jhmdb"), size=PROTOCOL.size)
    numbers = evaluate_propagation(placed, jhmdb_sequences(jhmdb), protocol).numbers
    assert numbers.keypoints == 2 * 15 * 3  # three frames of the four that have joints, of five
    assert numbers.pck["0.1"] < numbers.pck["0.3"] == 100  # at most half a patch off, of a box of 80×48


def test_joints_that_move_away_are_not_found(placed, jhmdb):
    joints = np.zeros((2, 15, 4))
    joints[0], joints[1] = np.linspace(1, 9, 15)[:, None], np.linspace(1, 9, 15)[:, None]
    joints[:, :, 1:] += 60
    for file in jhmdb.glob("joint_positions/*/*/joint_positions.mat"):
        file.write_bytes(mat_file(joints))
    assert evaluate_propagation(placed, jhmdb_sequences(jhmdb), PROTOCOL).numbers.pck["0.5"] == 0


# -- what is written ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_numbers_with_the_protocol_and_everything_else_they_depend_on(net, davis, tmp_path):
    encoder = network_encoder(net, name="tiny", features="backward", layer=5)
    result = evaluate_propagation(encoder, davis_sequences(davis), PROTOCOL, out=tmp_path / "out")
    written = json.loads((tmp_path / "out/results.json").read_text())
    protocol = written["protocol"]["propagation"]
    assert written["propagation"] == protocol
    assert (protocol["name"], protocol["top_k"], protocol["temperature"], protocol["context"]) == ("dino", 5, 0.1, 7)
    assert protocol["size"] == {"rule": "exact", "pixels": [64, 96], "multiple": 64}
    assert (written["settings"]["features"], written["settings"]["layer"]) == ("backward", 5)
    assert len(written["settings"]["sha256"]) == 64
    assert written["numbers"]["jf_mean"] == result.numbers.jf_mean
    assert written["protocol"]["data"]["sequences"] == 2
    assert "torch" in written["versions"]


def test_predictions_are_indexed_pngs_in_davis_naming(placed, davis, tmp_path):
    evaluate_propagation(placed, davis_sequences(davis), PROTOCOL, out=tmp_path / "out")
    folder = tmp_path / "out/predictions/still"
    assert sorted(path.name for path in folder.iterdir()) == [f"{n:05d}.png" for n in range(5)]
    with Image.open(folder / "00004.png") as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.array(written), stripes(0, 3, 5))


def test_joints_are_kept_as_numbers(placed, jhmdb, tmp_path):
    evaluate_propagation(placed, jhmdb_sequences(jhmdb), PROTOCOL, out=tmp_path / "out")
    assert np.load(tmp_path / "out/predictions/run/third/joints.npy").shape == (4, 15, 2)


@pytest.mark.parametrize("layout", ["davis", "vip", "jhmdb"])
def test_pictures_are_drawn_of_some_videos(placed, layout, request, tmp_path):
    read = {"davis": davis_sequences, "vip": vip_sequences, "jhmdb": jhmdb_sequences}[layout]
    evaluate_propagation(placed, read(request.getfixturevalue(layout)), PROTOCOL, out=tmp_path / "out", pictures=1)
    (file,) = (tmp_path / "out/pictures").iterdir()
    with Image.open(file) as picture:
        assert picture.width == 3 * 400 + 2 * 8


def test_an_interrupted_evaluation_goes_on_where_it_was(net, davis, tmp_path):
    seen = []
    plain = network_encoder(net, name="tiny")
    counting = replace(plain, encode=lambda frames: seen.append(1) or plain.encode(frames))
    data, out = davis_sequences(davis), tmp_path / "out"
    evaluate_propagation(counting, data, PROTOCOL, out=out, limit=1)
    assert len(seen) == 5
    result = evaluate_propagation(counting, data, PROTOCOL, out=out)
    assert len(seen) == 10
    assert result.numbers == evaluate_propagation(plain, data, PROTOCOL).numbers


def test_another_protocol_in_the_folder_is_refused_with_the_difference(placed, davis, tmp_path):
    data = davis_sequences(davis)
    evaluate_propagation(placed, data, PROTOCOL, out=tmp_path / "out")
    with pytest.raises(RecordMismatchError, match=r"top_k: 5 in the folder, 7 now"):
        evaluate_propagation(placed, data, replace(PROTOCOL, top_k=7), out=tmp_path / "out")


def test_the_table_carries_the_protocols_name(placed, davis, vip, jhmdb):
    sets = ((davis_sequences(davis), "J&F"), (vip_sequences(vip), "mIoU"), (jhmdb_sequences(jhmdb), "PCK@0.1"))
    for data, column in sets:
        table = propagation_table(evaluate_propagation(placed, data, PROTOCOL))
        assert table.title.endswith("protocol dino")
        assert column in table.header
        assert len(table.header) == len(table.rows[0])


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_before_anything_is_measured(placed, davis):
    (davis / "Annotations/480p/still/00003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"davis2017/val lacks 1 files:\n  .*00003\.png"):
        evaluate_propagation(placed, davis_sequences(davis), PROTOCOL)


def test_trouble_says_in_which_video(placed, davis):
    save_frame(davis / "JPEGImages/480p/still/00002.jpg", 0, size=(HEIGHT, WIDTH - 16))
    with pytest.raises(ValueError, match="still: frame 2 has 64×80 pixels"):
        evaluate_propagation(placed, davis_sequences(davis), PROTOCOL)


def black_and_white(davis):
    """The masks of `davis` as DAVIS-2016 has them: of one object, 0 and 255."""
    for file in (davis / "Annotations/480p").glob("*/*.png"):
        save_labels(file, (np.array(Image.open(file)) > 0) * 255)


def numbered_lines(davis, *names):
    """DAVIS-2016's own list: a frame and its mask per line."""
    (davis / "ImageSets/480p").mkdir()
    lines = [
        f"/JPEGImages/480p/{name}/{number:05d}.jpg /Annotations/480p/{name}/{number:05d}.png"
        for name in names
        for number in range(5)
    ]
    (davis / "ImageSets/480p/val.txt").write_text("\n".join(lines))


def test_masks_of_black_and_white_are_refused_or_taken_as_one_object(placed, davis, tmp_path):
    black_and_white(davis)
    with pytest.raises(SampleError, match=r"other: .* holds no objects, only 0, 255: .*--binary-masks"):
        evaluate_propagation(placed, davis_sequences(davis), PROTOCOL)
    result = evaluate_propagation(placed, davis_sequences(davis, binary=True), PROTOCOL)
    assert (result.dataset, result.numbers.objects) == ("davis2017/val", 2)
    assert result.numbers.j.mean > 50


def test_binary_masks_are_scored_as_the_same_masks_of_ones_and_zeros(placed, davis):
    for file in (davis / "Annotations/480p").glob("*/*.png"):
        save_labels(file, np.array(Image.open(file)) > 0)
    numbered = evaluate_propagation(placed, davis_sequences(davis), PROTOCOL).numbers
    for file in (davis / "Annotations/480p").glob("*/*.png"):
        save_labels(file, np.array(Image.open(file)) * 255)
    assert evaluate_propagation(placed, davis_sequences(davis, binary=True), PROTOCOL).numbers == numbered


def test_a_resumed_evaluation_does_not_read_masks_in_another_way(placed, davis, tmp_path):
    evaluate_propagation(placed, davis_sequences(davis), PROTOCOL, out=tmp_path / "out")
    with pytest.raises(ValueError, match="data"):
        evaluate_propagation(placed, davis_sequences(davis, binary=True), PROTOCOL, out=tmp_path / "out")


def test_the_lists_of_davis_2016_are_read(davis):
    numbered_lines(davis, "still", "other")
    data = davis_sequences(davis, binary=True)
    assert (data.name, data.expected, [item.name for item in data.sequences]) == (
        "davis2016/val",
        20,
        ["still", "other"],
    )
    assert data.missing() == []
    (davis / "ImageSets/2016").mkdir()
    (davis / "ImageSets/2016/val.txt").write_text("other\n")
    assert [item.name for item in davis_sequences(davis, binary=True).sequences] == ["other"]
    assert davis_sequences(davis).name == "davis2017/val"


def test_soft_masks_are_refused_by_their_file(placed, davis):
    save_labels(davis / "Annotations/480p/other/00000.png", stripes(0, 255, 255, 7))
    with pytest.raises(SampleError, match=r"other/00000\.png looks like a mask with soft edges"):
        evaluate_propagation(placed, davis_sequences(davis), PROTOCOL)


def test_the_command_takes_binary_masks_of_davis_alone(model, davis, vip):
    black_and_white(davis)
    numbered_lines(davis, "still")
    code, out, err = command("--dataset", "davis", "--root", davis, "-m", model, *SMALL, "--binary-masks", "--json")
    assert code == 0, err
    assert json.loads(out)["dataset"] == "davis2016/val"
    code, _, err = command("--dataset", "vip", "--root", vip, "-m", model, *SMALL, "--binary-masks")
    assert (code, "--binary-masks is for --dataset davis" in err) == (1, True)


def test_a_video_without_objects_is_refused(placed, davis):
    save_labels(davis / "Annotations/480p/other/00000.png", stripes(0, 0, 255))
    with pytest.raises(SampleError, match=r"other: .*00000\.png holds no objects, only 0, 255: .*--binary-masks"):
        evaluate_propagation(placed, davis_sequences(davis), PROTOCOL)


def test_a_class_that_vip_does_not_have_is_refused(placed, vip):
    save_labels(vip / "VIP_Fine/Annotations/Category_ids/videos7/000000000010.png", stripes(0, 4, 20))
    with pytest.raises(ValueError, match=re.escape("videos7, frame 2: the truth holds 20")):
        evaluate_propagation(placed, vip_sequences(vip), PROTOCOL)


def test_a_model_of_timms_is_measured_by_its_normed_patches(davis):
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=24, depth=3, num_heads=2, dynamic_img_size=True).eval()
    encoder = module_encoder(vit, name="timm:tiny", layer=-1)
    frames = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = vit.forward_features(frames)[:, 1:].transpose(1, 2).unflatten(2, (2, 3))
        torch.testing.assert_close(encoder.encode(frames), expected)
    assert evaluate_propagation(encoder, davis_sequences(davis), PROTOCOL).settings["features"] == "timm"
    with pytest.raises(ValueError, match="in eval mode"):
        module_encoder(vit.train(), name="timm:tiny")


SMALL_MODELS = {
    "vit_tiny_patch16_224.augreg_in21k": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_base_patch16_clip_224.openai": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_base_patch16_siglip_224": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_small_patch16_224.dino": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_small_patch14_dinov2": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "beit_base_patch16_224": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
}
"""Models of every kind, much reduced: what matters is how frames are made for them."""


@pytest.fixture
def timm_models(monkeypatch):
    """timm without its weights, which cannot be had here, and with small models in place of large ones."""
    import timm

    create = timm.create_model

    def small(name, pretrained=False, **options):
        return create(name, pretrained=False, **options, **SMALL_MODELS.get(name, {}))

    monkeypatch.setattr(timm, "create_model", small)
    return timm


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", (64, 96)),
        ("vit_base_patch16_clip_224.openai", (64, 96)),
        ("vit_base_patch16_siglip_224", (64, 96)),
        ("vit_small_patch16_224.dino", (64, 96)),
        ("vit_small_patch14_dinov2", (56, 84)),
        ("beit_base_patch16_224", (224, 224)),
        ("convnext_atto", (64, 96)),
        ("resnet18", (64, 96)),
    ],
)
def test_models_of_timms_get_frames_as_they_were_trained_on_them(davis, timm_models, tmp_path, name, size):
    module, seen = load_module(name).eval(), []
    forward = module.forward_intermediates
    module.forward_intermediates = lambda frames, **options: seen.append(frames) or forward(frames, **options)
    encoder = module_encoder(module, name=f"timm:{name}")
    black, objects = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 2, np.eye(HEIGHT, WIDTH, dtype=np.uint8)
    assert len(list(propagate_labels(encoder.encode, black, objects, PROTOCOL))) == 2
    config = timm_models.models.get_pretrained_cfg(name)
    mean, std = np.array(config.mean), np.array(config.std)
    assert all(frames.shape[-2:] == size for frames in seen)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], -mean / std, atol=1e-5)
    result = evaluate_propagation(encoder, davis_sequences(davis), PROTOCOL, out=tmp_path / "out")
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["propagation"]["image_mean"] == written["settings"]["image_mean"] == list(config.mean)
    assert written["propagation"]["image_std"] == list(config.std)
    assert written["settings"]["frames"]["size"] == ([224, 224] if size == (224, 224) else None)
    shown = propagation_table(result)
    frames = dict(zip(shown.header, shown.rows[0], strict=True))["frames"]
    assert f"mean {' '.join(f'{value:.4g}' for value in config.mean)}" in frames
    assert frames.startswith("224x224" if size == (224, 224) else f"{encoder.encode.multiple}s")


def test_a_model_of_one_size_says_so(timm_models, caplog):
    load_encoder("timm:beit_base_patch16_224")
    assert "takes frames of 224×224 pixels alone: they are resized to that" in caplog.text


def test_the_protocol_as_released_normalises_every_encoder_by_its_own_numbers(timm_models):
    encoder = load_encoder("timm:vit_tiny_patch16_224.augreg_in21k")
    assert fitted_protocol(find_protocol("dino_as_released"), encoder.encode).image_std == (0.228, 0.224, 0.225)
    asked = adjusted(DINO, {"image_std": [0.1, 0.2, 0.3]})
    assert fitted_protocol(asked, encoder.encode).image_std == (0.1, 0.2, 0.3)
    assert fitted_protocol(DINO, encoder.encode).image_std == (0.5, 0.5, 0.5)
    assert fitted_protocol(DINO, by_place) is DINO


@pytest.mark.parametrize(
    ("name", "layer", "says"),
    [
        ("no_such_model", -1, r"timm:no_such_model cannot be loaded: Unknown model"),
        ("resnet18", 9, r"timm:resnet18, layer 9, cannot encode a frame of 64×96: feature index 9 is out of range"),
        ("vit_small_patch14_dinov2", -3, r"layer -3, cannot encode a frame of 56×84: feature index"),
    ],
)
def test_what_timm_cannot_do_is_a_sentence(timm_models, name, layer, says):
    frames, objects = [np.zeros((64, 96, 3), np.uint8)], np.eye(64, 96, dtype=np.uint8)

    def run():
        list(propagate_labels(load_encoder(f"timm:{name}", layer=layer).encode, frames, objects, PROTOCOL))

    with pytest.raises(ValueError, match=says):
        run()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mean": (0.5, 0.5)}, "the pretrained_cfg of x: image_mean must be three finite numbers"),
        ({"std": (0, 0, 0)}, "the pretrained_cfg of x: image_std must be positive"),
        ({"input_size": (1, 32, 32)}, "x takes frames of 1 channels, wanted 3"),
    ],
)
def test_a_model_whose_frames_cannot_be_made_is_refused(timm_models, changes, says):
    module = timm_models.create_model("resnet18").eval()
    module.pretrained_cfg = {**module.pretrained_cfg, **changes}
    with pytest.raises(ValueError, match=says):
        module_encoder(module, name="x")


def test_frames_of_a_network_are_of_whole_patches():
    net = make_tiny_net(patch_size=14, image_size=56)
    encoder = network_encoder(net, name="tiny")
    protocol = replace(DINO, size=FrameSize("short", 64))
    frames = [np.zeros((60, 100, 3), np.uint8)] * 2
    assert len(list(propagate_labels(encoder.encode, frames, np.eye(60, 100, dtype=np.uint8), protocol))) == 2
    assert encoder.settings["frames"] == {"multiple": 14, "size": None}


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments):
    ran = CliRunner().invoke(app, ["evaluate", "propagation", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture
def model(net, monkeypatch):
    """The network's name, without the second that loading takes."""
    monkeypatch.setattr(MidwayNetwork, "from_pretrained", lambda name, **options: net)
    return "in memory"


@pytest.mark.parametrize(("layout", "rules"), [("davis", ""), ("vip", "/vip"), ("jhmdb", "/jhmdb")])
def test_the_command_measures_a_checkpoint_by_the_rules_of_the_data_set(model, layout, rules, request):
    root = request.getfixturevalue(layout)
    by = ("--protocol", "cropmae")
    code, out, err = command("--dataset", layout, "--root", root, "-m", model, *SMALL, *by, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["propagation"]["name"] == f"cropmae{rules}, size=short:64"
    assert found["task"] == layout


def test_the_command_writes_a_folder_and_a_table(net, davis, tmp_path):
    net.save_pretrained(tmp_path / "net")
    out = tmp_path / "out"
    arguments = ("--dataset", "davis", "--root", davis, "-m", tmp_path / "net", "--protocol", "dino", *SMALL)
    code, stdout, err = command(*arguments, "--features", "student", "--layer", 3, "--limit", 1, "-o", out)
    assert code == 0, err
    assert "1 of 2 videos, protocol dino" in " ".join(stdout.split())
    assert json.loads((out / "results.json").read_text())["settings"]["features"] == "student"


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (["--dataset", "kitti"], "--dataset must be one of davis, vip, jhmdb, got 'kitti'"),
        (["--protocol", "crw"], "no propagation protocol 'crw'"),
        (["--set", "top=3"], "a protocol has no 'top'"),
        (["--features", "deep"], "features must be one of teacher, student, backward"),
    ],
)
def test_the_command_says_what_is_wrong_on_one_line(model, davis, changed, wanted):
    code, _, err = command("--dataset", "davis", "--root", davis, "-m", model, *SMALL, *changed)
    assert code == 1
    assert wanted in " ".join(err.split())


def test_real_frames_in_davis_layout_are_measured(model, shared, tmp_path):
    """Frames and first mask of a video of DAVIS; its other masks are not there, so the first one stands in for them."""
    source, root = shared / "data/davis", tmp_path / "DAVIS"
    first = np.array(Image.open(source / "Annotations/480p/judo/00000.png"))
    (root / "JPEGImages/480p").mkdir(parents=True)
    (root / "JPEGImages/480p/judo").symlink_to(source / "JPEGImages/480p/judo")
    for number in range(16):
        save_labels(root / f"Annotations/480p/judo/{number:05d}.png", first)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("judo\n")
    code, out, err = command(
        *("--dataset", "davis", "--root", root, "-m", model, "--protocol", "dino", "--set", "size=short:128"),
        *("-o", tmp_path / "out", "--json"),
    )
    assert code == 0, err
    assert 0 < json.loads(out)["numbers"]["jf_mean"] < 100


@pytest.mark.parametrize("form", ["{}.jpg", "frame_{}.png", "frame ({}).png", "{}_left.png", "v1.{}.png"])
def test_frames_are_in_the_order_of_their_numbers(tmp_path, form):
    for number in range(12):
        (tmp_path / form.format(number)).write_bytes(b"")
    assert [path.name for path in pictures_in(tmp_path)] == [form.format(number) for number in range(12)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lists_of_videos_may_have_a_byte_order_mark(tmp_path, start, end):
    (tmp_path / "val.txt").write_bytes(start + end.join([b"bike-packing", b" judo ", b""]))
    assert read_names(tmp_path / "val.txt") == ["bike-packing", "judo"]
