"""The reading map of a step."""

import re

import pytest
import torch
from conftest import TINY
from torch import nn

from midway_hub.training.methods import make_method
from midway_hub.training.timeline import Timeline
from midway_hub.training.trace import trace_step
from midway_hub.training.trace.modules import Call, fold, landmarks, record_calls

PAIRS = 2


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    timeline = Timeline(steps=100, steps_per_epoch=10, batch_size=PAIRS, visits_per_step=PAIRS)
    settings = {"warmup_epochs": 1, "head": {"prototypes": 16, "hidden": 8, "bottleneck": 8}}
    return make_method("midway", settings, {**TINY, "depth": 3, "levels": [1, 0]}, timeline)


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    return {
        "globals": torch.randn(PAIRS, 4, 3, 64, 64),
        "locals": torch.randn(PAIRS, 4, 3, 32, 32),
        "dense": torch.randn(PAIRS, 2, 3, 64, 64),
    }


@pytest.fixture(scope="module")
def text(method, batch):
    return trace_step(method, batch, step=0, width=140)


def row(text, *cells):
    """Whether a line holds these cells, in this order."""
    return re.search(r"\b" + r"\s+".join(map(re.escape, cells)), text) is not None


def test_modules_come_in_the_order_in_which_they_run(text):
    order = [
        "model.teacher.patch_embed",
        "teacher_head",
        "model.student.patch_embed",
        "student_head",
        "model.dynamics.levels.1.midway",
        "model.dynamics.levels.0.midway",
    ]
    places = [text.index(name) for name in order]
    assert places == sorted(places)


def test_shapes_are_those_of_the_batch(text):
    assert row(text, "globals", "2x4x3x64x64", "float32")
    assert row(text, "model.student.patch_embed", "PatchEmbed", "8x3x64x64", "8x4x4x48")  # 2 pairs x 4 global views
    assert row(text, "model.student.blocks.{0..2}", "Block", "8x5x48", "8x5x48")  # local views: 2x2 patches and CLS
    assert row(text, "model.dynamics.levels.1.midway.{0..3}", "SelfAttentionBlock", "4x44x24", "4x44x24")


def test_losses_name_their_formulas_and_have_their_values(text, method, batch):
    assert "losses.dino_loss: " in text
    assert "losses.prediction_loss: " in text
    assert "model.dynamics_" not in text
    for name in ("dino", "dynamics_1", "dynamics_0"):
        assert re.search(rf"^ {name}\s+\d+\.\d+\s+losses\.", text, re.MULTILINE)


def test_optimizer_groups_count_every_trained_parameter_once(text, method):
    trained = sum(p.numel() for p in method.network.parameters() if p.requires_grad)
    groups = re.findall(r"^ (?:student|dynamics)_(?:matrices|vectors)\s+\d+\s+([\d,]+)", text, re.MULTILINE)
    assert len(groups) == 4
    assert sum(int(count.replace(",", "")) for count in groups) == trained
    assert f"{trained / 1e6:.2f} M parameters are trained" in text


def test_averages_name_what_they_follow_and_how_much_they_keep(text):
    assert row(text, "model.teacher", "model.student")
    assert row(text, "teacher_head", "student_head")
    assert row(text, "model.dynamics.levels.1.backward_ema", "model.dynamics.levels.1.backward")
    assert re.search(r"model\.teacher\s+model\.student\s+[\d,]+\s+0\.996", text)


def test_last_layer_has_no_gradient_in_the_first_epoch_only(text, method, batch):
    assert "without a gradient" in text
    assert "student_head.last_layer" in text.split("without a gradient")[1]
    assert "without a gradient" not in trace_step(method, batch, step=10)


def test_tracing_changes_no_weight_and_leaves_no_gradient(method, batch):
    before = {name: value.clone() for name, value in method.network.state_dict().items()}
    trace_step(method, batch)
    assert all(torch.equal(value, before[name]) for name, value in method.network.state_dict().items())
    assert all(parameter.grad is None for parameter in method.network.parameters())
    assert not any(module._forward_hooks for module in method.network.modules())


def test_map_has_no_control_characters_and_keeps_to_its_width(text):
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 140


def test_blocks_in_a_row_are_folded_and_their_parameters_added():
    calls = [Call(f"blocks.{index}", "Block", "2x3", "2x3", 10) for index in range(3)]
    other = Call("norm", "LayerNorm", "2x3", "2x3", 5)
    folded = fold([*calls, other, other, calls[0]])
    assert [(call.name, call.parameters, call.times) for call in folded] == [
        ("blocks.{0..2}", 30, 3),
        ("norm", 5, 2),
        ("blocks.0", 10, 1),
    ]


def test_calls_on_other_shapes_are_not_folded():
    calls = [Call("blocks.0", "Block", "2x3", "2x3", 10), Call("blocks.1", "Block", "4x3", "4x3", 10)]
    assert fold(calls) == calls


def test_what_is_inside_a_block_is_not_watched():
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.GELU()) for _ in range(2)])})
    assert [name for name, _ in landmarks(network)] == ["blocks.0", "blocks.1"]


def test_hooks_are_gone_even_if_the_forward_fails():
    network = nn.ModuleDict({"head": nn.Linear(2, 2)})
    with pytest.raises(RuntimeError), record_calls(network):
        network["head"](torch.zeros(1, 3))
    assert not network["head"]._forward_hooks
