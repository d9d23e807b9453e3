"""A checkpoint's own `preprocessor_config.json`: kept by the network, taken by every door, refused where it is odd."""

import copy
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from evaluation_sets import InMemory, flow_sample
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from midway_hub import MidwayBackbone, MidwayImageProcessor, MidwayNetwork, registry
from midway_hub.analysis.gates import without_gates
from midway_hub.analysis.propagation import propagate_labels
from midway_hub.analysis.propagation_protocols import DINO, FrameSize
from midway_hub.analysis.tracking import track_points
from midway_hub.app.demo import run_demo
from midway_hub.app.pair import Pair
from midway_hub.cli import app
from midway_hub.extraction import extract_features
from midway_hub.hub.errors import WeightsUnavailableError
from midway_hub.hub.named import bundled_folder
from midway_hub.hub.repository import Repository
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD, get_entry
from midway_hub.training.evaluation.dynamics.evaluate import evaluate_dynamics
from midway_hub.training.evaluation.dynamics.readings import Matching, Perturbation, StandStill
from midway_hub.training.evaluation.flow.networks import FeatureMatching, NetworkFlow
from midway_hub.training.evaluation.probes import flow_probe, segmentation_probe
from midway_hub.training.evaluation.propagation.encoders import network_encoder
from midway_hub.training.evaluation.segmentation.evaluate import evaluate_segmentation
from midway_hub.training.evaluation.weights import describe_network
from midway_hub.video.writer import write_video

PICO = "midway_pico"
FILE = "preprocessor_config.json"
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.1)
BLACK = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
SIZE = (64, 96)


def own(**settings):
    return MidwayImageProcessor(image_mean=MEAN, image_std=STD, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundled checkpoint with a normalisation of its own."""
    path = tmp_path_factory.mktemp("own") / "net"
    shutil.copytree(bundled_folder(get_entry(PICO)), path)
    own().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def net(folder):
    return MidwayNetwork.from_pretrained(folder)


@pytest.fixture
def tiny_folder(tmp_path):
    """A tiny network's folder without any processor."""
    make_tiny_net().save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / FILE).unlink()
    return tmp_path / "tiny"


# -- where it comes from -----------------------------------------------------------------------------------------------


def test_the_network_and_the_processor_of_a_folder_say_the_same(folder, net):
    processor = MidwayImageProcessor.from_pretrained(folder)
    assert (processor.image_mean, processor.image_std) == (MEAN, STD)
    assert net.image_processor.to_dict() == processor.to_dict()
    assert MidwayBackbone.from_pretrained(folder).image_processor.image_mean == MEAN


@pytest.mark.parametrize("name", ["model.safetensors", FILE])
def test_files_of_a_checkpoint_have_the_processor_beside_them(folder, name):
    assert MidwayImageProcessor.from_pretrained(folder / name).image_mean == MEAN


def test_a_weight_file_of_any_name_goes_with_the_processor_beside_it(folder, tmp_path):
    for name in ("config.json", FILE):
        shutil.copy(folder / name, tmp_path)
    shutil.copy(folder / "model.safetensors", tmp_path / "best.safetensors")
    found = MidwayNetwork.from_pretrained(tmp_path / "best.safetensors", cache_dir=tmp_path / "cache")
    assert found.image_processor.image_mean == MEAN
    assert MidwayImageProcessor.from_pretrained(tmp_path / "best.safetensors").image_std == STD


def test_a_weight_file_with_its_configuration_inside_tells_the_patch_size(tmp_path):
    config = json.dumps({"model_type": "midway", "patch_size": 14, "image_size": 224})
    save_file({"one": torch.zeros(1)}, tmp_path / "net.safetensors", metadata={"config": config})
    assert MidwayImageProcessor.from_pretrained(tmp_path / "net.safetensors").multiple == 14


@pytest.mark.parametrize(("name", "patch"), [(PICO, 8), ("midway_pico_untrained", 16), ("midway_vits_bdd100k", 16)])
def test_registry_names_are_taken_and_nothing_is_fetched_for_them(monkeypatch, name, patch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    processor = MidwayImageProcessor.from_pretrained(name, fit="shortest", size=64)
    assert (processor.multiple, processor.image_mean, processor.image_std) == (patch, IMAGENET_MEAN, IMAGENET_STD)
    assert (processor.fit, processor.size) == ("shortest", 64)


def test_a_registered_checkpoint_is_normalised_as_the_registry_says(monkeypatch):
    entry = get_entry("midway_vits_bdd100k")
    other = replace(entry, mean=MEAN, std=STD)
    monkeypatch.setattr("midway_hub.hub.preprocessor.get_entry", lambda name: other)
    assert MidwayImageProcessor.from_pretrained("midway_vits_bdd100k").image_std == STD


def test_an_unknown_name_lists_close_ones_and_a_missing_path_is_no_name(tmp_path):
    with pytest.raises(registry.UnknownModelError, match="Did you mean 'midway_pico'"):
        MidwayImageProcessor.from_pretrained("midway_pico_synthetik")
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        MidwayImageProcessor.from_pretrained(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has neither preprocessor_config.json nor config.json.*: nothing"):
        MidwayImageProcessor.from_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match="is a local path"):
        MidwayImageProcessor.from_pretrained(tmp_path / "empty", revision="main")


def test_without_a_file_it_is_imagenets_normalisation_and_the_networks_patches(tiny_folder):
    for processor in (
        MidwayNetwork.from_pretrained(tiny_folder).image_processor,
        MidwayImageProcessor.from_pretrained(tiny_folder),
    ):
        assert (processor.image_mean, processor.image_std) == (IMAGENET_MEAN, IMAGENET_STD)
        assert (processor.fit, processor.multiple) == ("pad", 16)


@pytest.mark.parametrize(
    ("said", "patch", "multiple"), [(16, 8, 16), (8, 8, 8), (12, 8, 8), (16, 14, 14), (None, 14, 14)]
)
def test_the_multiple_follows_the_patch_size(tmp_path, said, patch, multiple):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "midway", "patch_size": patch}))
    values = {"image_mean": MEAN, "image_std": STD} | ({} if said is None else {"multiple": said})
    (tmp_path / FILE).write_text(json.dumps(values))
    assert MidwayImageProcessor.from_pretrained(tmp_path).multiple == multiple
    assert MidwayImageProcessor.from_pretrained(tmp_path, multiple=5).multiple == 5


def test_another_models_configuration_says_nothing_of_patches(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "patch_size": 14}))
    own().save_pretrained(tmp_path)
    assert MidwayImageProcessor.from_pretrained(tmp_path).multiple == 16


def test_torch_hub_makes_the_processor_of_a_checkpoint(folder):
    import hubconf

    assert hubconf.midway_processor(str(folder), size=64, fit="shortest").image_mean == MEAN
    assert hubconf.midway_processor(PICO).multiple == 8
    assert hubconf.midway_processor().image_mean == IMAGENET_MEAN


# -- how it stays with the network -------------------------------------------------------------------------------------


def test_saving_a_network_keeps_how_its_frames_are_made(net, tmp_path):
    net.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / FILE).read_text())["image_mean"] == list(MEAN)
    assert MidwayNetwork.from_pretrained(tmp_path / "again").image_processor.to_dict() == net.image_processor.to_dict()


def test_a_network_made_in_memory_can_be_told_and_says_the_default_elsewhere(tmp_path):
    net = make_tiny_net(patch_size=8)
    assert (net.image_processor.multiple, net.image_processor.image_mean) == (8, IMAGENET_MEAN)
    net.image_processor = own(multiple=8, fit="contain", size=64)
    net.save_pretrained(tmp_path)
    assert MidwayNetwork.from_pretrained(tmp_path).image_processor.to_dict() == net.image_processor.to_dict()


def test_a_processor_saved_before_a_network_that_knows_of_none_is_left_alone(tmp_path):
    own().save_pretrained(tmp_path)
    make_tiny_net().save_pretrained(tmp_path)
    assert MidwayNetwork.from_pretrained(tmp_path).image_processor.image_mean == MEAN


@pytest.mark.parametrize("made_of", [lambda net: net.with_shared_encoder(), without_gates, copy.deepcopy])
def test_networks_made_of_a_network_take_it_over(made_of):
    net = make_tiny_net()
    net.image_processor = own()
    assert made_of(net).image_processor.image_std == STD


def test_what_a_number_was_measured_with_names_the_normalisation(net):
    described = describe_network(net)
    assert (described["image_mean"], described["image_std"]) == (list(MEAN), list(STD))


# -- every door --------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """What black pixels have become where frames enter the encoder."""
    found = []
    tokens = MidwayEncoder.tokens

    def recording(self, images, blocks):
        found.append(images.detach().flatten(0, -4)[:, :, 0, 0].float().cpu())
        return tokens(self, images, blocks)

    monkeypatch.setattr(MidwayEncoder, "tokens", recording)
    return found


def assert_black(found):
    assert found
    torch.testing.assert_close(torch.cat(found), torch.tensor(BLACK).expand(len(torch.cat(found)), 3))


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    """Black frames as two pictures, as a video and as a folder with the first one's objects."""
    place = tmp_path_factory.mktemp("black")
    frame, objects = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    objects[:32, :32] = 1
    (place / "frames").mkdir()
    for name in ("a.png", "b.png", "frames/00000.png", "frames/00001.png"):
        Image.fromarray(frame).save(place / name)
    Image.fromarray(objects).save(place / "objects.png")
    write_video(place / "clip.mp4", [frame] * 4, fps=10)
    return place


@pytest.mark.parametrize(
    "words",
    [
        "features a.png clip.mp4 -o OUT",
        "features a.png -o OUT --size 48",
        "motion a.png b.png -o OUT",
        "motion clip.mp4 -o OUT --size 48",
        "flow a.png b.png -o OUT.flo",
        "flow clip.mp4 -o OUT.mp4",
        "segment a.png -o OUT.png",
        "segment clip.mp4 -o OUT.mp4 --size 48",
        "perturb a.png b.png --at 20,20 -o OUT.png --draws 2",
        "track clip.mp4 --points 20,20 --draws 2 --size 0 -o OUT.mp4",
        "propagate frames --labels objects.png --size 64 -o OUT.mp4",
        "propagate clip.mp4 --labels objects.png --size 64 --features backward -o OUT.mp4",
        "pca a.png b.png -o OUT.png",
        "trajectories clip.mp4 -o OUT.png",
    ],
)
def test_every_command_normalises_as_the_checkpoint_says(seen, folder, black, tmp_path, words):
    name, *rest = words.split()
    arguments = [str(black / word) if (black / word).exists() else word for word in rest]
    arguments = [word.replace("OUT", str(tmp_path / "out")) for word in arguments]
    ran = CliRunner().invoke(app, [name, *arguments, "-m", str(folder), "--device", "cpu"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert_black(seen)


def black_pair():
    sample = flow_sample(np.zeros((*SIZE, 2)))
    sample.first[:], sample.second[:] = 0, 0
    return sample


@pytest.mark.parametrize(
    "look",
    [
        lambda net: NetworkFlow(net)(*[np.zeros((*SIZE, 3), np.uint8)] * 2),
        lambda net: FeatureMatching(net)(*[np.zeros((*SIZE, 3), np.uint8)] * 2),
        lambda net: flow_probe(InMemory([black_pair()]))(net),
        lambda net: evaluate_dynamics(
            InMemory([black_pair()]),
            [Perturbation(net, gates=False, draws=2), Matching(net), StandStill(8)],
            pictures=0,
        ),
        lambda net: evaluate_dynamics(InMemory([black_pair()]), [Matching(net)], short_side=48, pictures=0),
        lambda net: list(
            propagate_labels(
                network_encoder(net, name="own").encode,
                [np.zeros((*SIZE, 3), np.uint8)] * 2,
                np.eye(*SIZE, dtype=np.uint8),
                replace(DINO, size=FrameSize("exact", (60, 90))),
            )
        ),
        lambda net: list(track_points(net, [np.zeros((*SIZE, 3), np.uint8)] * 2, [[9, 9]], draws=2, size=None)),
        lambda net: Pair(net, [Image.new("RGB", (SIZE[1], SIZE[0]))] * 2).motion,
    ],
)
def test_evaluations_and_the_page_normalise_as_the_checkpoint_says(seen, net, look):
    look(net)
    assert_black(seen)


def test_the_demo_normalises_as_the_checkpoint_says(seen, folder, black, tmp_path, monkeypatch):
    monkeypatch.setattr("midway_hub.app.demo.SHORT_SIDE", 48)
    run_demo(black / "clip.mp4", out=tmp_path, model=str(folder), frames=2, draws=1)
    assert_black(seen)


def test_segmentation_is_evaluated_as_the_checkpoint_says(seen, net):
    from midway_hub.training.data.segmentation.sample import LabelledImage

    classes = net.segmentation_head.config.classes
    picture = LabelledImage(np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8), "black")
    for measure in (evaluate_segmentation, lambda net, data: segmentation_probe(data)(net)):
        measure(net, InMemory([picture], classes=classes))
    assert_black(seen)


def test_the_page_shows_features_as_the_checkpoint_says(seen, net, tmp_path):
    pytest.importorskip("gradio", reason="the page needs the extra `app`")
    from types import SimpleNamespace

    from midway_hub.app.tabs import features

    frame = Image.new("RGB", (SIZE[1], SIZE[0]))
    clip = SimpleNamespace(seconds=[0.0, 0.1], frames=lambda numbers: [frame] * len(numbers), size=frame.size)
    session = SimpleNamespace(chosen=SimpleNamespace(net=net), clip=clip, lock=threading.Lock())
    features._features(session, 2, lambda *step: None)
    assert_black(seen)


def test_features_are_those_of_the_checkpoints_own_processor(net, folder, tmp_path):
    picture = Image.effect_noise((70, 50), 60).convert("RGB")
    picture.save(tmp_path / "noise.png")
    extract_features(net, [tmp_path / "noise.png"], tmp_path / "out", format="npz")
    found = np.load(next((tmp_path / "out").glob("*.npz")))["last"][0]
    with torch.no_grad():
        inputs = MidwayImageProcessor.from_pretrained(folder)(picture)
        expected = net.encode(inputs["pixel_values"]).last[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_fit_of_a_checkpoint_is_that_of_its_features_unless_a_size_is_asked_for(net, folder, tmp_path):
    path = tmp_path / "net"
    shutil.copytree(folder, path)
    own(fit="resize", size=(32, 40), multiple=8).save_pretrained(path)
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    for options, grid in (([], (4, 5)), (["--size", "48"], (6, 9))):
        out = tmp_path / f"out{len(options)}"
        CliRunner().invoke(
            app, ["features", str(tmp_path / "a.png"), "-o", str(out), "--format", "npz", "-m", str(path), *options]
        )
        assert np.load(next(out.glob("*.npz")))["last"].shape[-2:] == grid


@pytest.mark.parametrize("why", ["offline", "unreachable"])
def test_a_repository_whose_processor_cannot_be_seen_is_not_taken_for_one_without(monkeypatch, tmp_path, caplog, why):
    repository = Repository("me/net", "0" * 40, tmp_path, local_files_only=why == "offline")

    def unreachable(self, filename):
        raise WeightsUnavailableError("the Hub could not be reached")

    monkeypatch.setattr(Repository, "fetch", unreachable)
    repository._fetch_if_there("conversion.json")
    assert not caplog.text
    repository._fetch_if_there(FILE)
    assert "whether Hub repository 'me/net' says how its frames are normalised" in caplog.text
    assert "ImageNet's mean and standard deviation are taken" in caplog.text


# -- what is odd -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0, 0.5]}', r"image_std must be positive, got \(0.5, 0.0"),
        ('{"image_std": [0.5, -1, 0.5]}', r"image_std must be positive, got \(0.5, -1.0"),
        ('{"image_std": [0.5, 1e-30, 0.5]}', r"image_std must be from 0.001 to 1.*got \(0.5, 1e-30"),
        ('{"image_mean": [0.5, 0.5]}', r"image_mean must be three finite numbers.*got \[0.5, 0.5\]"),
        ('{"image_mean": [0.5, 0.5, 0.5, 0.5]}', "image_mean must be three finite numbers"),
        ('{"image_mean": 0.5}', "image_mean must be three finite numbers.*got 0.5"),
        ('{"image_mean": null}', "image_mean must be three finite numbers.*got None"),
        ('{"image_mean": [NaN, 0.5, 0.5]}', r"image_mean must be three finite numbers.*got \[nan"),
        ('{"image_std": [Infinity, 0.5, 0.5]}', r"image_std must be three finite numbers.*got \[inf"),
        ('{"image_mean": ["0.5", "0.5", "0.5"]}', r"image_mean must be three finite numbers.*got \['0.5'"),
        ('{"image_mean": "123"}', "image_mean must be three finite numbers.*got '123'"),
        ('{"image_std": [true, 1, 1]}', r"image_std must be three finite numbers.*got \[True"),
        ('{"image_std": [1' + 400 * "0" + ", 1, 1]}", "image_std must be three finite numbers"),
        ('{"image_mean": [123.7, 116.3, 103.5]}', r"image_mean must be from -1 to 1.*divided by 255; got \(123.7"),
        ('{"image_std": [58.4, 57.1, 57.4]}', r"image_std must be from 0.001 to 1.*divided by 255; got \(58.4"),
        ('{"multiple": 0}', "multiple must be a whole number of at least 1, got 0"),
        ('{"fit": "squeeze"}', "fit must be one of pad, .*got 'squeeze'"),
        ('{"image_men": [0.5, 0.5, 0.5]}', "no argument 'image_men'; did you mean image_mean"),
        (
            '{"image_processor_type": "ViTImageProcessor", "image_mean": [0.5]}',
            r"is 'ViTImageProcessor', wanted 'Midway",
        ),
        ('{"image_mean": [0.5, 0.5, 0.5]', "is not valid JSON"),
        ("[0.5, 0.5, 0.5]", "holds a JSON list, expected an object"),
    ],
)
def test_what_is_no_normalisation_is_refused_by_file_key_and_value(tiny_folder, text, says):
    (tiny_folder / FILE).write_text(text)
    for load in (MidwayImageProcessor.from_pretrained, MidwayNetwork.from_pretrained):
        with pytest.raises(ValueError, match=says) as caught:
            load(tiny_folder)
        assert str(tiny_folder / FILE) in str(caught.value)


def test_a_command_says_so_in_a_sentence(tiny_folder, tmp_path):
    (tiny_folder / FILE).write_text('{"image_std": [0, 0, 0]}')
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    ran = CliRunner().invoke(
        app, ["features", str(tmp_path / "a.png"), "-o", str(tmp_path / "o"), "-m", str(tiny_folder)]
    )
    assert ran.exit_code == 1
    words = " ".join(ran.output.split())
    assert "image_std must be positive, got (0.0, 0.0, 0.0)" in words
    assert "MidwayImageProcessor(image_mean=..., image_std=...)" in words
    assert "Traceback" not in words


def test_a_processor_for_another_size_normalises_alike():
    at = own(resample="bilinear", multiple=8, fit="crop", size=32).with_short_side(24)
    assert (at.image_mean, at.image_std, at.resample, at.multiple) == (MEAN, STD, "bilinear", 8)
    assert (at.fit, at.size) == ("shortest", 24)
    native = at.with_short_side(None, multiple=1)
    assert (native.fit, native.size, native.multiple) == ("pad", None, 1)
    with pytest.raises(ValueError, match="one number, the length of the short side, got 0"):
        at.with_short_side(0)
