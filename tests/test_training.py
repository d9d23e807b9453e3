import subprocess
import sys
from importlib.resources import files

import pytest
import torch
from safetensors.torch import load_file

from midway_hub import MidwayNetwork
from midway_hub.registry import get_entry
from midway_hub.training.initialise import initialise
from midway_hub.training.recipes import list_recipes, load_recipe
from midway_hub.verify import verify


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "midway_hub.training", *arguments], capture_output=True, text=True)


def test_the_recipe_makes_the_bundled_weights_again(tmp_path):
    ran = command("init", "pico_untrained", str(tmp_path / "made"))
    assert ran.returncode == 0, ran.stderr
    assert "7.41 M parameters, torch.float16, untrained" in ran.stdout
    bundled = load_file(str(files("midway_hub.weights") / "midway_pico_untrained" / "model.safetensors"))
    made = load_file(tmp_path / "made" / "model.safetensors")
    assert made.keys() == bundled.keys()
    assert all(value.shape == bundled[key].shape and value.dtype == bundled[key].dtype for key, value in made.items())
    assert all(check.passed for check in verify(tmp_path / "made"))


def test_the_bundled_weights_leave_room_for_heads_within_16_mib():
    size = (files("midway_hub.weights") / "midway_pico_untrained" / "model.safetensors").stat().st_size
    assert size <= 15 * 2**20


def test_every_recipe_names_a_registered_checkpoint():
    for name in list_recipes("init"):
        assert get_entry(load_recipe(name)["model"])


def test_the_checkpoint_that_a_recipe_makes_is_what_the_registry_describes(tmp_path):
    net = MidwayNetwork.from_pretrained("midway_pico_untrained")
    for name, value in get_entry("midway_pico_untrained").architecture.items():
        assert getattr(net.config, name) == value


def test_an_unknown_recipe_lists_those_there_are(tmp_path):
    ran = command("init", "pico", str(tmp_path / "made"))
    assert ran.returncode == 1
    assert "unknown recipe 'pico'; there are: " in ran.stderr
    assert "pico_untrained" in ran.stderr
    with pytest.raises(ValueError, match=r"unknown recipe '\.\./x'"):
        load_recipe("../x")


def test_a_pretraining_recipe_gives_the_network_that_its_training_begins_with(tmp_path):
    nets = [initialise("smoke", tmp_path / str(number)) for number in range(2)]
    first, second = (load_file(tmp_path / str(number) / "model.safetensors") for number in range(2))
    assert nets[0].config.embed_dim == 48
    assert all((value == second[name]).all() for name, value in first.items())
    assert all(check.passed for check in verify(tmp_path / "0"))


def test_a_recipe_without_a_seed_takes_the_seed_0(tmp_path):
    (tmp_path / "mine.yaml").write_text("kind: init\nmodel: midway_pico_untrained\n")
    assert initialise(str(tmp_path / "mine.yaml"), tmp_path / "made").dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("kind: init\n", "model: missing"),
        ("kind: init\nmodel: midway_pico_untrained\nsede: 1\n", "did you mean 'seed'"),
        ("kind: init\nmodel: midway_pico_untrained\ndtype: int8\n", "dtype: "),
        ("kind: flow\nbase: flow_synthetic_small\n", "of kind 'flow', which begins with the weights of another run"),
    ],
)
def test_a_recipe_that_gives_no_untrained_network_says_why(tmp_path, text, wanted):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=wanted):
        initialise(str(tmp_path / "mine.yaml"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_folder_with_files_is_not_written_over(tmp_path):
    (tmp_path / "mine").write_text("mine")
    ran = command("init", "pico_untrained", str(tmp_path))
    assert ran.returncode == 1
    assert "is not empty; choose another folder" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
