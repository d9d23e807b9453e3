import subprocess
import sys
from importlib.resources import files

import pytest
from midway_hub.training.recipes import list_recipes, load_recipe
from safetensors.torch import load_file

from midway_hub import MidwayNetwork
from midway_hub.registry import get_entry
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


def test_a_folder_with_files_is_not_written_over(tmp_path):
    (tmp_path / "mine").write_text("mine")
    ran = command("init", "pico_untrained", str(tmp_path))
    assert ran.returncode == 1
    assert "is not empty; choose another folder" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
