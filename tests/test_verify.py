import shutil

import pytest
import torch
from conftest import make_tiny_net
from safetensors.torch import load_file, save_file

from midway_hub import MidwayNetwork
from midway_hub.registry import list_models
from midway_hub.verify import GOLDEN, named_input, save_golden, verify


@pytest.fixture
def saved(tmp_path):
    net = make_tiny_net()
    net.save_pretrained(tmp_path)
    save_golden(net, tmp_path)
    return tmp_path


def outcome(checks):
    return {check.name: check.passed for check in checks}


def test_a_sound_checkpoint_passes_every_check(saved):
    assert outcome(verify(saved)) == dict.fromkeys(
        ["checksum", "keys", "finite weights", "odd size", "golden outputs"], True
    )


@pytest.mark.parametrize("name", list_models("*pico*"))
def test_the_bundled_checkpoints_pass_on_this_machine(name):
    assert all(check.passed for check in verify(name))


@pytest.mark.parametrize("head", ["flow_head", "segmentation_head"])
def test_a_changed_head_shows_in_the_golden_outputs(tmp_path, head):
    net = MidwayNetwork.from_pretrained("midway_pico")
    net.save_pretrained(tmp_path)
    save_golden(net, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    changed = next(name for name in weights if name.startswith(head) and weights[name].is_floating_point())
    weights[changed] = weights[changed] + 0.1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert outcome(verify(tmp_path))["golden outputs"] is False


def test_one_changed_weight_shows_in_the_golden_outputs(saved):
    weights = load_file(saved / "model.safetensors")
    weights["dynamics.motion_tokens"] = weights["dynamics.motion_tokens"] + 0.1
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    checks = {check.name: check for check in verify(saved)}
    assert checks["golden outputs"].passed is False
    assert "largest difference" in checks["golden outputs"].detail


def test_broken_weights_are_named(saved):
    weights = load_file(saved / "model.safetensors")
    weights["teacher.norm.bias"][3] = float("nan")
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    checks = {check.name: check for check in verify(saved)}
    assert checks["finite weights"].passed is False
    assert checks["finite weights"].detail == "teacher.norm.bias"


def test_without_stored_outputs_there_is_nothing_to_compare(saved):
    (saved / GOLDEN).unlink()
    assert outcome(verify(saved))["golden outputs"] is None


def test_outputs_of_another_network_are_told_apart(saved, tmp_path):
    other = tmp_path / "other"
    make_tiny_net(levels=(9, 4)).save_pretrained(other)
    shutil.copy(saved / GOLDEN, other)
    checks = {check.name: check for check in verify(other)}
    assert "outputs of another network" in checks["golden outputs"].detail


def test_named_inputs_are_the_same_everywhere():
    assert torch.equal(named_input("a", (2, 3)), named_input("a", (2, 3)))
    assert not torch.equal(named_input("a", (2, 3)), named_input("b", (2, 3)))
    assert named_input("source_224x224", (3,)).tolist() == pytest.approx([-1.4036, 0.00027, 0.42415], abs=1e-4)
