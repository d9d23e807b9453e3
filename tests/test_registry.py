"""The named checkpoints."""

import os
import subprocess
import sys

import pytest

from midway_hub.config import MidwayConfig
from midway_hub.registry import TASKS, UnknownModelError, get_entry, list_models

NAMES = [
    "midway_vits_bdd100k",
    "midway_vitb_bdd100k",
    "midway_vits_wtvenice",
    "midway_pico",
    "midway_pico_untrained",
]


def test_the_released_and_the_bundled_checkpoints_are_listed() -> None:
    assert list_models() == NAMES


def test_a_pattern_selects_names() -> None:
    assert list_models("*vits*") == ["midway_vits_bdd100k", "midway_vits_wtvenice"]
    assert list_models("nothing*") == []


def test_a_task_selects_names_that_can_do_it() -> None:
    assert list_models(task="motion") == NAMES
    assert list_models(task="flow") == ["midway_pico"]


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="features, motion, flow, segmentation, got 'depth'"):
        list_models(task="depth")


def test_a_pattern_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pattern must be a string .* got int"):
        list_models(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_one_that_the_configuration_accepts(name: str) -> None:
    config = MidwayConfig(**get_entry(name).architecture)
    assert config.embed_dim == get_entry(name).architecture["embed_dim"]


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_states_what_a_user_must_know(name: str) -> None:
    entry = get_entry(name)
    assert entry.summary
    assert entry.recipe
    assert entry.citation
    assert entry.torch_hub.startswith("midway_")
    assert set(entry.task) <= set(TASKS)
    assert entry.licence_url is not None
    assert entry.bundled == (entry.repo_id is None) == (entry.filename is None)


def test_every_measured_number_names_the_command_that_prints_it() -> None:
    commands = [number.command for name in NAMES for number in get_entry(name).measured.values()]
    assert all(commands)


def test_the_untrained_checkpoint_says_so_in_its_name_and_summary() -> None:
    entry = get_entry("midway_pico_untrained")
    assert not entry.trained
    assert entry.summary.startswith("UNTRAINED")


def test_a_misspelt_name_lists_close_ones() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'midway_vits_bdd100k'"):
        get_entry("midway_vits_bd100")


def test_a_name_in_another_spelling_is_corrected() -> None:
    with pytest.raises(UnknownModelError, match="It is spelt 'midway_vitb_bdd100k'"):
        get_entry("Midway-ViTB-BDD100K")


def test_a_name_that_is_only_begun_lists_its_endings() -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_entry("midway_vits")
    assert "'midway_vits_bdd100k'" in str(caught.value)
    assert "'midway_vits_wtvenice'" in str(caught.value)


def test_a_name_like_none_lists_all() -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_entry("resnet50")
    assert all(name in str(caught.value) for name in NAMES)
    assert "Did you mean" not in str(caught.value)


def test_the_registry_is_read_without_torch_transformers_or_the_hub_client() -> None:
    code = """
import sys
from midway_hub.registry import list_models
list_models()
heavy = {"torch", "transformers", "timm", "numpy", "huggingface_hub"} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
