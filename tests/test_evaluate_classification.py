"""What frozen features of whole pictures are worth: k nearest neighbours and a linear classifier."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner

from midway_hub import MidwayImageProcessor, MidwayNetwork
from midway_hub.training.__main__ import app
from midway_hub.training.evaluation.classification.evaluate import classification_tables, evaluate_classification
from midway_hub.training.evaluation.classification.features import PictureEncoder, network_encoder, picture_features
from midway_hub.training.evaluation.classification.pictures import read_pictures
from midway_hub.training.evaluation.classification.readouts import PENALTIES, class_scores, logistic_predict

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
PROCESSOR = MidwayImageProcessor(fit="crop", size=32)


def paint(folder: Path, count: int, *, start: int = 0) -> None:
    """Write noisy pictures of one colour per class."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(start, start + count):
            noise = np.random.default_rng([number, index]).normal(0, 20, (40, 48, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{index}.png"
            )


@pytest.fixture
def flat(tmp_path):
    paint(tmp_path / "pictures", 10)
    return tmp_path / "pictures"


def mean_colour(name: str = "colour", offset: float = 0.0) -> PictureEncoder:
    return PictureEncoder(name, lambda some: torch.stack([x.mean((1, 2)) for x in some]) + offset, {"encoder": name})


# -- which pictures ------------------------------------------------------------------------------------------------


def test_folders_for_training_and_testing_are_taken_as_they_are(tmp_path):
    paint(tmp_path / "train", 3)
    paint(tmp_path / "val", 2)
    found = read_pictures(tmp_path)
    assert found.classes == ("blue", "green", "red")
    assert (len(found.train), len(found.test)) == (9, 6)
    assert found.split == "train/ and val/"


def test_a_class_that_the_test_lacks_keeps_its_number(tmp_path):
    paint(tmp_path / "train", 2)
    paint(tmp_path / "test", 1)
    for file in (tmp_path / "test/green").iterdir():
        file.unlink()
    (tmp_path / "test/green").rmdir()
    assert sorted(label for _, label in read_pictures(tmp_path).test) == [0, 2]


@pytest.mark.parametrize(("share", "each"), [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9)])
def test_a_split_takes_a_share_of_every_class(flat, share, each):
    found = read_pictures(flat, test_share=share)
    assert [sum(label == wanted for _, label in found.test) for wanted in range(3)] == [each] * 3
    assert not {path for path, _ in found.train} & {path for path, _ in found.test}


def test_a_split_does_not_depend_on_where_the_folder_lies(flat, tmp_path):
    before = {path.relative_to(flat) for path, _ in read_pictures(flat).test}
    moved = flat.rename(tmp_path / "elsewhere")
    assert {path.relative_to(moved) for path, _ in read_pictures(moved).test} == before


def test_folders_that_are_no_classes_are_refused(flat, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_pictures(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        read_pictures(tmp_path / "empty")
    paint(tmp_path / "one", 2)
    for name in ("red", "green"):
        (tmp_path / "one" / name).rename(tmp_path / f"was_{name}")
    with pytest.raises(ValueError, match="holds the one class 'blue'"):
        read_pictures(tmp_path / "one")
    paint(tmp_path / "single", 1)
    with pytest.raises(ValueError, match="holds one picture"):
        read_pictures(tmp_path / "single")
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        read_pictures(flat, test_share=1.5)


def test_classes_that_training_lacks_are_named(tmp_path):
    paint(tmp_path / "train", 2)
    paint(tmp_path / "val", 1)
    (tmp_path / "val/red").rename(tmp_path / "val/yellow")
    with pytest.raises(ValueError, match="lacks: yellow"):
        read_pictures(tmp_path)


# -- features ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cls", "mean", "both"])
def test_features_are_those_of_encode(flat, kind):
    net = make_tiny_net()
    files = [path for path, _ in read_pictures(flat).test]
    found = picture_features(network_encoder(net, PROCESSOR, name="net", kind=kind), files, batch=4)
    with torch.no_grad():
        wanted = net.encode(PROCESSOR(list(map(str, files)))["pixel_values"])
    kinds = {"cls": [wanted.cls], "mean": [wanted.last.flatten(2).mean(2)]}
    kinds["both"] = kinds["cls"] + kinds["mean"]
    torch.testing.assert_close(found, torch.cat(kinds[kind], 1), rtol=1e-4, atol=1e-5)


def test_finished_parts_are_not_computed_again_unless_something_changed(flat, tmp_path):
    files = [path for path, _ in read_pictures(flat).train]
    first = picture_features(mean_colour(), files, keep=tmp_path / "kept")
    again = picture_features(mean_colour(offset=1.0), files, keep=tmp_path / "kept")
    assert torch.equal(first, again)
    other = picture_features(mean_colour("other", offset=1.0), files, keep=tmp_path / "kept")
    torch.testing.assert_close(other, first + 1)
    Image.new("RGB", (48, 41), (255, 255, 255)).save(files[0])
    assert picture_features(mean_colour(), files, keep=tmp_path / "kept")[0].min() == 1


def test_a_broken_picture_is_named(flat):
    files = [path for path, _ in read_pictures(flat).test]
    files[2].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=files[2].name):
        picture_features(mean_colour(), files)


def test_features_that_are_not_finite_are_refused_with_the_pictures_name(flat):
    files = [path for path, _ in read_pictures(flat).test]
    broken = PictureEncoder("broken", lambda some: torch.tensor([[float("nan")]] * len(some)), {})
    with pytest.raises(ValueError, match=f"{files[0].name} are not finite"):
        picture_features(broken, files)


# -- read-outs -----------------------------------------------------------------------------------------------------


def clouds(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three overlapping clouds in ten dimensions, two of which tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]])
    features = torch.randn(count, 10, generator=generator)
    features[:, :2] += centres[labels]
    return features * torch.logspace(-3, 3, 10) + 5, labels


def test_the_linear_classifier_comes_close_to_the_best_there_is():
    (train, labels), (test, truth) = clouds(600, seed=0), clouds(3000, seed=1)
    predicted, _ = logistic_predict(train, labels, test, classes=3)
    plain = (test[:, :2] - 5) / torch.logspace(-3, 3, 10)[:2]
    centres = torch.tensor([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]])
    best = (torch.cdist(plain, centres).argmin(1) == truth).double().mean()
    found = (predicted == truth).double().mean()
    assert found > best - 0.02


def test_a_penalty_is_chosen_where_features_are_many_and_mostly_noise():
    def noisy(count, seed):
        labels = torch.arange(count) % 2
        features = torch.randn(count, 300, generator=torch.Generator().manual_seed(seed))
        features[:, 0] += 3.0 * labels
        return features, labels

    (train, labels), (test, truth) = noisy(200, 0), noisy(2000, 1)
    predicted, penalty = logistic_predict(train, labels, test, classes=2)
    assert penalty > PENALTIES[0]
    assert (predicted == truth).double().mean() > 0.7


def test_scores_are_those_of_a_hand_made_case():
    scores = class_scores(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]), ("a", "b", "absent"))
    assert scores.top1 == pytest.approx(75)
    assert scores.classes == pytest.approx({"a": 200 / 3, "b": 100})
    assert scores.mean_class == pytest.approx((200 / 3 + 100) / 2)


# -- all of it -----------------------------------------------------------------------------------------------------


def test_colours_are_read_out_of_the_mean_colour_and_not_out_of_noise(flat):
    found = evaluate_classification(mean_colour(), read_pictures(flat))
    assert {name: scores.top1 for name, scores in found.numbers.items()} == {"knn": 100, "linear": 100}
    assert found.chance == pytest.approx(100 / 3)
    generator = torch.Generator().manual_seed(0)
    noise = PictureEncoder("noise", lambda some: torch.randn(len(some), 8, generator=generator), {})
    assert evaluate_classification(noise, read_pictures(flat)).numbers["linear"].top1 < 90


def test_classes_are_listed_where_there_are_not_too_many(flat):
    scores, classes = classification_tables(evaluate_classification(mean_colour(), read_pictures(flat)))
    assert [row[1] for row in scores.rows] == ["knn", "linear", "-"]
    assert [row[0] for row in classes.rows] == ["blue", "green", "red"]


def test_the_command_measures_a_checkpoint_and_keeps_what_it_computed(flat, tmp_path, monkeypatch):
    net = make_tiny_net()
    monkeypatch.setattr(MidwayNetwork, "from_pretrained", lambda name, **options: net)
    arguments = ["evaluate", "classification", "--root", str(flat), "-m", "in memory", "--size", "32", "--json"]
    ran = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["train"], found["test"], found["classes"]) == (24, 6, 3)
    stored = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert stored["numbers"] == found["numbers"]
    assert stored["settings"]["processor"]["fit"] == "crop"
    assert len(list((tmp_path / "out/features").glob("*.npy"))) == 1


def test_the_command_names_what_is_wrong(flat):
    arguments = ["evaluate", "classification", "--root", str(flat), "-m", "midway_pico_untrained"]
    ran = CliRunner().invoke(app, [*arguments, "--features", "patches"])
    assert ran.exit_code == 1
    assert "one of cls, mean, both, got 'patches'" in ran.stderr
