"""Training a correlation head: its loss, what it starts from, and a run of it."""

import json

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from test_correlation_head import HEAD
from test_training_finetuning import SMALL, command

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import CorrelationHeadConfig, FlowHeadConfig
from midway_hub.training.export.joining import JoinError, join_heads
from midway_hub.training.tasks.config import load_task_config
from midway_hub.training.tasks.flow import FlowSettings, FlowTask, full_size, started
from midway_hub.training.tasks.flow_losses import sequence_l1
from midway_hub.training.tasks.optimisation import OptimisationSettings, parameter_groups
from midway_hub.training.tasks.start import StartSettings, starting_network
from midway_hub.training.timeline import Timeline

LINE = Timeline(steps=100, steps_per_epoch=10, batch_size=2, visits_per_step=2)
CORRELATION = CorrelationHeadConfig.of({**HEAD, "tile": (32, 48)})
DPT = {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 8}
OPTION = "task.head=" + json.dumps(HEAD)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "source": torch.randn(2, 3, 32, 48, generator=generator),
        "target": torch.randn(2, 3, 32, 48, generator=generator),
        "flow": torch.randn(2, 2, 32, 48, generator=generator),
        "valid": torch.rand(2, 32, 48, generator=generator) < 0.7,
    }


@pytest.fixture
def saved(tmp_path):
    make_tiny_net().save_pretrained(tmp_path / "net")
    return str(tmp_path / "net")


def network(saved, head=CORRELATION, named=None, **start):
    settings = StartSettings(weights=saved, **start)
    return starting_network(settings, head, which="flow_head", seed=0, named=named)


def test_later_estimates_count_more_and_occluded_pixels_as_told():
    torch.manual_seed(0)
    estimates = list(torch.randn(3, 2, 2, 4, 5))
    flow, valid, weights = torch.randn(2, 2, 4, 5), torch.rand(2, 4, 5) < 0.6, torch.rand(2, 4, 5)
    expected = 0.0
    for index, estimate in enumerate(estimates):
        errors = np.abs((estimate - flow).double().numpy()).sum(1) * weights.double().numpy()
        expected += 0.7 ** (2 - index) * errors[valid.numpy()].mean()
    found = sequence_l1(estimates, flow, valid, gamma=0.7, weights=weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    plain = sequence_l1(estimates, flow, valid, gamma=0.7)
    assert torch.equal(plain, sequence_l1(estimates, flow, valid, gamma=0.7, weights=torch.ones(2, 4, 5)))


def test_invalid_flow_changes_neither_loss_nor_gradient():
    estimate = torch.randn(1, 2, 4, 5, requires_grad=True)
    flow, valid = torch.randn(1, 2, 4, 5), torch.rand(1, 4, 5) < 0.5
    losses = []
    for spoiled in (flow, torch.where(valid[:, None], flow, torch.nan)):
        loss = sequence_l1([estimate], spoiled, valid)
        losses.append((loss, *torch.autograd.grad(loss, estimate)))
    for one, other in zip(*losses, strict=True):
        assert torch.equal(one, other)


def test_all_estimates_of_a_pair_are_compared_in_pixels(saved):
    net = network(saved).eval()
    with torch.no_grad():
        sequence, _, _ = net.flow_sequence(batch()["source"], batch()["target"])
    estimates = full_size(sequence)
    assert len(estimates) == len(sequence.coarse) + len(sequence.fine)
    assert {tuple(estimate.shape) for estimate in estimates} == {(2, 2, 32, 48)}
    torch.testing.assert_close(estimates[0].mean(), 8 * sequence.coarse[0].mean(), rtol=0.1, atol=1e-3)


def test_a_warm_start_is_true_flow_times_one_factor_a_pair():
    torch.manual_seed(0)
    flow = torch.randn(64, 2, 3, 3)
    flow[0, 0, 0, 0] = torch.nan
    ratio = (started(flow, 0.5)[1:] / flow[1:]).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    warm = ratio[:, 0] != 0
    assert 16 < warm.sum() < 48
    assert (ratio[warm, 0] > 0.49).all()
    assert (ratio[warm, 0] < 1.51).all()
    assert not started(flow, 0.0).any()


def test_the_loss_has_its_parts_and_trains_head_and_body(saved):
    task = FlowTask(network(saved), FlowSettings(dynamics_weight=0.5, warm_start=0.5), LINE)
    output = task.network(batch())
    assert set(output.losses) == {"flow", "scale", *(f"dynamics_{level}" for level in task.network.model.config.levels)}
    assert set(output.diagnostics) == {"epe", "epe_of_zero"}
    sum(output.losses.values()).backward()
    for part in (task.network.model.flow_head.update, task.network.model.student, task.network.model.dynamics):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())


def test_the_scale_s_loss_does_not_move_the_flow(saved):
    task = FlowTask(network(saved), FlowSettings(scale_weight=1.0), LINE)
    task.network(batch()).losses["scale"].backward()
    change = task.network.model.flow_head.refine.change
    assert not change.weight.grad[:2].any()
    assert change.weight.grad[2].any()


def test_occluded_pixels_may_count_nothing(saved):
    task = FlowTask(network(saved), FlowSettings(occluded_weight=0.0, scale_weight=0.0), LINE)
    hidden = {**batch(), "occluded": torch.ones(2, 32, 48, dtype=torch.bool)}
    assert task.network(hidden).losses["flow"] == 0
    assert task.network(batch()).losses["flow"] > 0


def test_the_body_can_learn_at_a_rate_of_its_own(saved):
    groups = parameter_groups(network(saved), None, OptimisationSettings(body_scale=0.25))
    scales = {group["name"]: group["scale"] for group in groups}
    assert {scale for name, scale in scales.items() if "body" in name} == {0.25}
    assert {scale for name, scale in scales.items() if "body" not in name} == {1.0}
    named = dict(network(saved).named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(named)


def test_a_head_of_the_kind_goes_on_as_the_checkpoint_says(saved, tmp_path):
    first = network(saved)
    first.save_pretrained(tmp_path / "correlation")
    again = network(str(tmp_path / "correlation"), FlowHeadConfig(tile=(64, 64)), named=())
    assert again.flow_head.config == CorrelationHeadConfig.of({**HEAD, "tile": (64, 64)})
    assert torch.equal(again.flow_head.update.gates.weight, first.flow_head.update.gates.weight)
    more = CorrelationHeadConfig.of({"kind": "correlation", "updates": 9})
    changed = network(str(tmp_path / "correlation"), more, named=("kind", "updates"))
    assert changed.flow_head.config.updates == 9
    assert changed.flow_head.config.hidden_dim == HEAD["hidden_dim"]


def test_a_head_of_the_other_kind_starts_anew(saved, tmp_path, caplog):
    network(saved, FlowHeadConfig(layer_dims=(8, 8, 8, 8), feature_dim=8, last_dim=8)).save_pretrained(tmp_path / "dpt")
    caplog.set_level("INFO", logger="midway_hub")
    found = network(str(tmp_path / "dpt"), CORRELATION, named=tuple(HEAD))
    assert found.flow_head.config.kind == "correlation"
    assert "flow head: all" in caplog.text
    assert "start anew" in caplog.text


def test_a_frozen_body_stays_bit_for_bit_and_heads_trained_apart_are_joined(saved, tmp_path):
    start = network(saved)
    start.save_pretrained(tmp_path / "start")
    flow = network(str(tmp_path / "start"), freeze=True)
    task = FlowTask(flow, FlowSettings(), LINE, freeze=True)
    optimizer = task.make_optimizer()
    sum(task.network(batch()).losses.values()).backward()
    task.schedule(optimizer, 50)
    optimizer.step()
    flow, before = task.export(), start.state_dict()
    same = [name for name, value in flow.state_dict().items() if torch.equal(value, before[name])]
    assert {name.split(".")[0] for name in before if name not in same} == {"flow_head"}

    values = start.config.to_dict() | {"segmentation_head": {"classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]]}}
    other = MidwayNetwork(MidwayConfig.from_dict(values))
    other.load_state_dict(before, strict=False)
    other.save_pretrained(tmp_path / "classes")
    joined = join_heads(flow, tmp_path / "classes")
    assert joined.has_segmentation_head
    for name, value in joined.state_dict().items():
        origin = other if name.startswith("segmentation_head") else flow
        assert torch.equal(value, origin.state_dict()[name])
    with pytest.raises(JoinError, match="has no head that the network lacks"):
        join_heads(joined, tmp_path / "classes")
    with torch.no_grad():
        other.student.cls_token.add_(1)
    other.save_pretrained(tmp_path / "moved")
    with pytest.raises(JoinError, match="another encoder or other dynamics"):
        join_heads(flow, tmp_path / "moved")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.head={kind: correlation, layer_dims: [1, 1, 1, 1]}", "CorrelationHeadConfig has no layer_dims"),
        ("task.head={levels: 3}", "FlowHeadConfig has no levels"),
        ("task.head={kind: correlation, levels: 0}", "levels must be a whole number from 1 to 8"),
        ("task.head={kind: correlation, tile: [8, 8]}", "it is the crop that training uses"),
    ],
)
def test_a_wrong_head_says_what_is_wanted(override, message):
    with pytest.raises(ValueError, match=message):
        load_task_config(
            "flow", "paper/flow_vits", ["data.roots={sintel: a, things: b, chairs: c, tartanair: d}", override]
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("correlation")
    make_tiny_net().save_pretrained(folder / "net")
    options = (
        f"start.weights={folder / 'net'}",
        "evaluation.every_steps=2",
        "data.render=cpu",
        "engine.precision=fp32",
        *SMALL,
        OPTION,
    )
    code, _, err = command("flow", "flow_correlation_pico", *options, "steps=4", "--run-dir", folder / "run")
    assert code == 0, err
    return folder, options


def test_a_run_measures_and_exports_what_estimates_flow(run):
    folder, _ = run
    net = MidwayNetwork.from_pretrained(folder / "run/export")
    assert net.flow_head.config.kind == "correlation"
    assert net.flow_head.config.tile == (32, 48)
    assert net.flow(*torch.randn(2, 1, 3, 40, 56)).flow.isfinite().all()
    assert "flow/epe" in (folder / "run/metrics.jsonl").read_text()
