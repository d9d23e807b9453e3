import copy
import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.compat import Compat
from midway_hub.training.methods import METHODS, make_method
from midway_hub.training.methods.optimisation import clip_per_tensor
from midway_hub.training.timeline import Timeline

MODEL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "image_size": 48, "levels": [2, 1, 0], "motion_dim": 16}
HEADS = {"midway_heads": 2, "backward_heads": 2, "predictor_heads": 2, "midway_depth": 2, "predictor_depth": 3}
SETTINGS = {
    "head": {"hidden": 24, "bottleneck": 16, "prototypes": 48},
    "drop_path": 0.0,
    "warmup_epochs": 0,
    "base_lr": 0.05,
    "freeze_last_layer_epochs": 0,
}
TIMELINE = Timeline(steps=20, steps_per_epoch=2, batch_size=8, visits_per_step=8)


def make(name="midway", *, model=None, compat=None, timeline=TIMELINE, **settings):
    torch.manual_seed(0)
    model = {**MODEL, **HEADS, **(model or {})}
    method = make_method(name, {**SETTINGS, **settings}, model, timeline, compat)
    with torch.no_grad():  # so that nothing is zero, and that the teacher is not the student
        for parameter in method.network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    method.network.train()
    return method


def views(batch=2, *, seed=1, dtype=torch.float32):
    """Random views; in float64 all of one size, as position embeddings are resized in float32."""
    local = 48 if dtype == torch.float64 else 32
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return {
        "globals": draw(batch, 4, 3, 48, 48),
        "locals": draw(batch, 6, 3, local, local),
        "dense": draw(batch, 2, 3, 48, 48),
    }


def part(batch, index, parts):
    return {name: tensor.chunk(parts)[index] for name, tensor in batch.items()}


def backward(network, *batches):
    """Gather the gradients of micro-batches; returns the outputs."""
    outputs = [network(batch) for batch in batches]
    for output in outputs:
        (sum(output.losses.values()) / len(batches)).backward()
    return outputs


def take_step(method, optimizer, step, *batches, network=None):
    method.schedule(optimizer, step)
    optimizer.zero_grad()
    outputs = backward(network or method.network, *batches)
    measured = method.before_update(step)
    optimizer.step()
    method.after_update(step)
    return outputs, measured


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.requires_grad}


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


# -- losses --------------------------------------------------------------------------------------------------------


def naive_losses(network, batch):
    """Every loss of a step in float64, crop by crop, pair by pair, direction by direction."""
    net, size, terms = network.model, len(batch["globals"]), []

    def probabilities(head, features, centre, temperature):
        scores = torch.exp((head(features) - centre) / temperature)
        return scores / scores.sum(dim=-1, keepdim=True)

    crops = [batch["globals"][:, v] for v in range(4)] + [batch["locals"][:, v] for v in range(6)]
    for q in range(4):
        features = net.encode(crops[q], network="teacher").cls
        target = probabilities(network.teacher_head, features, network.centre, 0.04)
        for v, crop in enumerate(crops):
            if v != q and not (v < 4 and abs(v - q) == 2):
                features = net.encode(crop, network="student").cls
                said = probabilities(network.student_head, features, 0, 0.1)
                terms += [-(target[i] * said[i].log()).sum() for i in range(size)]
    losses = {"dino": sum(terms) / len(terms)}
    for index, level in enumerate(net.config.levels):
        distances = []
        for source, target in ((0, 1), (1, 0)):
            frames = batch["dense"][:, source], batch["dense"][:, target]
            predicted = net.infer_motion(*frames).predicted[index]
            (wanted,) = net.encode(frames[1], network="teacher", layers=[level], output_format="tokens").layers
            for p, w in zip(predicted.flatten(0, 1), wanted.flatten(0, 1), strict=True):
                distances.append((p / p.norm() - w / w.norm()).pow(2).sum())
        losses[f"dynamics_{level}"] = sum(distances) / len(distances)
    return losses


def test_losses_and_gradients_agree_with_a_naive_float64_implementation():
    method, batch = make(), views(dtype=torch.float64)
    method.network.double().centre.normal_()
    exact = copy.deepcopy(method.network)
    (output,) = backward(method.network, batch)
    expected = naive_losses(exact, batch)
    sum(expected.values()).backward()
    assert_same(output.losses, expected, rtol=1e-10, atol=1e-12)
    assert_same(gradients(method.network), gradients(exact), rtol=1e-7, atol=1e-12)


def test_losses_in_float32_agree_with_float64():
    method, batch = make(), views()
    exact = copy.deepcopy(method.network).double()
    found = method.network(batch).losses
    expected = exact({name: tensor.double() for name, tensor in batch.items()}).losses
    assert_same({name: loss.double() for name, loss in found.items()}, expected, rtol=1e-4, atol=1e-5)


def test_dino_is_midway_without_the_dynamics():
    midway, dino = make("midway"), make("dino")
    dino.network.load_state_dict({k: v for k, v in midway.network.state_dict().items() if "dynamics" not in k})
    batch = views()
    assert dino.network({k: v for k, v in batch.items() if k != "dense"}).losses.keys() == {"dino"}
    torch.testing.assert_close(dino.network(batch).losses["dino"], midway.network(batch).losses["dino"])


def test_weights_scale_their_losses():
    plain, weighted = make(), make(dino_weight=0.5, dynamics_weight=3.0)
    a, b = plain.network(views()).losses, weighted.network(views()).losses
    factors = {name: b[name].item() / a[name].item() for name in a}
    assert factors == pytest.approx({"dino": 0.5, "dynamics_2": 3.0, "dynamics_1": 3.0, "dynamics_0": 3.0})


def test_both_directions_of_a_pair_count_alike():
    method, batch = make(), views()
    swapped = {**batch, "dense": batch["dense"].flip(1)}
    assert_same(method.network(swapped).losses, method.network(batch).losses, rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_the_teachers_side():
    method = make()
    teachers = [module.requires_grad_(True) for module in method.network.follows()]
    backward(method.network, views())
    assert len(teachers) == 1 + 1 + 3 + 1  # encoder, target embed, a backward layer per level, head
    assert not any(p.grad is not None for module in teachers for p in module.parameters())


def test_losses_under_autocast_are_float32_and_close_to_full_precision():
    method, batch = make(), views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method.network(batch).losses
    assert {loss.dtype for loss in half.values()} == {torch.float32}
    assert_same(half, method.network(batch).losses, rtol=0.1, atol=0.1)


def test_views_that_are_missing_are_named():
    batch = views()
    del batch["dense"]
    with pytest.raises(ValueError, match=r"the views \['globals', 'locals'\], but this method also takes \['dense'\]"):
        make().network(batch)


# -- diagnostics ---------------------------------------------------------------------------------------------------


def test_entropy_and_divergence_of_the_teacher_sum_to_the_loss():
    method = make()
    output = method.network(views())
    total = output.diagnostics["teacher_entropy"] + output.diagnostics["teacher_student_kl"]
    assert float(total) == pytest.approx(output.losses["dino"].item(), rel=1e-6)
    assert 0 < float(output.diagnostics["teacher_entropy"]) < math.log(48)


def test_a_collapsed_network_shows_in_loss_and_spread():
    method = make()
    with torch.no_grad():
        for net in (method.network.model.student, method.network.model.teacher):
            net.norm.weight.zero_()
        for head in (method.network.student_head, method.network.teacher_head):
            head.last_layer.parametrizations.weight.original0.zero_()
    output = method.network(views())
    assert output.losses["dino"].item() == pytest.approx(math.log(48), rel=1e-5)
    assert float(output.diagnostics["feature_spread"]) == pytest.approx(0, abs=1e-5)


def test_the_copy_error_is_that_of_frames_which_do_not_move():
    method, batch = make(), views()
    moving = method.network(batch).diagnostics
    still = method.network({**batch, "dense": batch["dense"][:, :1].expand(-1, 2, -1, -1, -1)}).diagnostics
    for level in (2, 1, 0):
        tokens = method.network.model.encode(
            batch["dense"].flatten(0, 1), layers=[level], output_format="tokens"
        ).layers[0]
        unit = torch.nn.functional.normalize(tokens.double(), dim=-1)
        distance = (unit[0::2] - unit[1::2]).pow(2).sum(-1).mean()
        assert float(moving[f"copy_error_{level}"]) == pytest.approx(float(distance), rel=1e-4)
        assert float(still[f"copy_error_{level}"]) == pytest.approx(0, abs=1e-5)


# -- what follows a step -------------------------------------------------------------------------------------------


def test_the_centre_is_the_moving_mean_of_what_the_teacher_said():
    method, batch = make(centre_momentum=0.7), views(3)
    method.network.centre.normal_()
    net, before = method.network, method.network.centre.clone()
    with torch.no_grad():
        said = [net.teacher_head(net.model.encode(batch["globals"][:, q]).cls) for q in range(4)]
    expected = 0.7 * before.double() + 0.3 * torch.stack(said).double().mean(dim=(0, 1))
    take_step(method, method.make_optimizer(), 0, batch)
    torch.testing.assert_close(net.centre.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_centre_and_the_teacher_move_once_per_optimizer_step():
    method, batch = make(), views(4)
    backward(method.network, part(batch, 0, 2))
    before = state(method.network)
    backward(method.network, part(batch, 1, 2))
    assert_same(state(method.network), before, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in method.network.model.student.parameters():
            parameter.add_(1.0)
    method.after_update(0)
    moved = method.network.model.teacher.pos_embed - before["model.teacher.pos_embed"]
    followed = method.network.model.student.pos_embed - before["model.teacher.pos_embed"]
    torch.testing.assert_close(moved, (1 - 0.996) * followed, rtol=1e-3, atol=1e-6)
    assert not torch.equal(method.network.centre, before["centre"])


def test_everything_on_the_teachers_side_follows():
    method = make(teacher_momentum=0.0)
    take_step(method, method.make_optimizer(), 0, views())
    for average, source in method.network.follows().items():
        assert_same(state(average), state(source))


def test_a_step_that_was_not_taken_leaves_no_trace():
    method, untouched, batch = make(), make(), views(seed=3)
    backward(method.network, views(seed=2))
    method.after_rejection(0)
    method.network.zero_grad()
    for each in (method, untouched):
        take_step(each, each.make_optimizer(), 0, batch)
    assert_same(state(method.network), state(untouched.network), rtol=1e-5, atol=1e-6)


def test_looking_at_a_batch_in_eval_mode_does_not_move_the_centre():
    method, untouched = make(), make()
    method.network.eval()(views(seed=5))
    method.network.train()
    for each in (method, untouched):
        take_step(each, each.make_optimizer(), 0, views())
    torch.testing.assert_close(method.network.centre, untouched.network.centre)


def test_a_checkpoint_holds_the_centre_and_nothing_that_is_gathered():
    names = make().network.state_dict().keys()
    assert "centre" in names
    assert not any("teacher_sum" in name or "teacher_count" in name for name in names)


@pytest.mark.parametrize("name", ["midway", "dino", "dynamo"])
def test_four_micro_batches_of_two_are_one_of_eight(name):
    batch = views(8, dtype=torch.float64)
    whole, parts = make(name), make(name)
    for method, batches in ((whole, [batch]), (parts, [part(batch, k, 4) for k in range(4)])):
        method.network.double()
        optimizer = method.make_optimizer()
        for step in range(2):
            take_step(method, optimizer, step, *batches)
    assert_same(state(parts.network), state(whole.network), rtol=1e-9, atol=1e-10)


def test_accumulated_gradients_and_centre_agree_in_float32():
    batch, whole, parts = views(8), make(), make()
    backward(whole.network, batch)
    backward(parts.network, *(part(batch, k, 4) for k in range(4)))
    assert_same(gradients(parts.network), gradients(whole.network), rtol=1e-3, atol=1e-5)
    for method in (whole, parts):
        method.network.move_centre()
    torch.testing.assert_close(parts.network.centre, whole.network.centre, rtol=1e-5, atol=1e-6)


# -- gradients and optimizer ---------------------------------------------------------------------------------------


def test_the_last_layer_is_frozen_in_the_first_epoch_and_moves_after_it():
    method = make(freeze_last_layer_epochs=1)
    optimizer, last_layer = method.make_optimizer(), method.network.student_head.last_layer
    before = state(last_layer)
    for step in range(TIMELINE.steps_per_epoch):
        take_step(method, optimizer, step, views(seed=step))
        assert_same(state(last_layer), before, rtol=0, atol=0)
    take_step(method, optimizer, TIMELINE.steps_per_epoch, views())
    for name, value in state(last_layer).items():
        assert not torch.equal(value, before[name])


def test_gradients_are_clipped_tensor_by_tensor():
    large, small = torch.full((4, 4), 5.0), torch.full((9,), 0.5)
    measured = clip_per_tensor([large, small], 3.0)
    assert float(large.norm()) == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(small, torch.full((9,), 0.5))
    assert float(measured["norm"]) == pytest.approx(math.sqrt(20.0**2 + 1.5**2))
    assert float(measured["clipped"]) == 0.5


def clipped_norms(method):
    for parameter in method.network.parameters():
        parameter.grad = torch.full_like(parameter, 10.0) if parameter.requires_grad else None
    measured = method.before_update(10)
    found = {name: float(p.grad.norm()) for name, p in method.network.named_parameters() if p.requires_grad}
    dynamics = {norm for name, norm in found.items() if "dynamics" in name}
    return set(found.values()) - dynamics, dynamics, measured


def test_every_tensor_of_student_and_dynamics_is_clipped():
    student, dynamics, measured = clipped_norms(make(clip=2.0))
    assert max(student) == pytest.approx(2.0, rel=1e-4)
    assert max(dynamics) == pytest.approx(2.0, rel=1e-4)
    assert float(measured["gradient_clipped_dynamics"]) == 1
    assert float(measured["gradient_norm_dynamics"]) > 1000


def test_the_released_recipe_clips_the_student_only():
    student, dynamics, measured = clipped_norms(make(clip=2.0, compat=Compat(clip_student_only=True)))
    assert max(student) == pytest.approx(2.0, rel=1e-4)
    assert min(dynamics) > 10
    assert "gradient_norm_dynamics" in measured


def test_no_clip_measures_only():
    student, _, measured = clipped_norms(make(clip=None))
    assert max(student) > 100
    assert measured.keys() == {"gradient_norm_student", "gradient_norm_dynamics"}


@pytest.mark.parametrize("name", ["midway", "dino", "dynamo"])
def test_parameter_groups_hold_every_trainable_parameter_once(name):
    method = make(name)
    grouped = [id(p) for group in method.make_optimizer().param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.network.parameters() if p.requires_grad)
    assert len(set(grouped)) == len(grouped)


def test_parameter_groups_part_matrices_from_vectors_and_student_from_dynamics():
    method = make()
    names = {id(p): name for name, p in method.network.named_parameters()}
    groups = {group["name"]: group["params"] for group in method.make_optimizer().param_groups}
    for group, parameters in groups.items():
        owner, kind = group.split("_")
        assert {p.ndim >= 2 for p in parameters} == {kind == "matrices"}
        assert {"dynamics" in names[id(p)] for p in parameters} == {owner == "dynamics"}
    tokens = {"model.student.cls_token", "model.student.pos_embed", "model.dynamics.motion_tokens"}
    matrices = {names[id(p)] for group in ("student_matrices", "dynamics_matrices") for p in groups[group]}
    assert tokens <= matrices


# -- architectures -------------------------------------------------------------------------------------------------

ABLATIONS = {
    "full": {},
    "no backward": {"backward": False},
    "single level": {"levels": [2]},
    "no refinement": {"refinement": False},
    "no gating": {"gating": False},
    "latent dynamics alone": {"backward": False, "levels": [2], "refinement": False, "gating": False},
    "shallow and wide": {"midway_depth": 1, "predictor_depth": 1, "motion_dim": 32},
}


@pytest.mark.parametrize("model", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_every_ablation_trains_a_step_without_an_unused_parameter(model):
    method = make(model=model)
    before = state(method.network)
    take_step(method, method.make_optimizer(), 0, views())
    trainable = dict(p for p in method.network.named_parameters() if p[1].requires_grad)
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert [name for name in trainable if torch.equal(before[name], method.network.state_dict()[name])] == []
    method.network(views())  # and goes on


def test_the_two_frame_dino_trains_a_step_without_an_unused_parameter():
    method = make("dino")
    take_step(method, method.make_optimizer(), 0, views())
    assert [name for name, p in method.network.named_parameters() if p.requires_grad and p.grad is None] == []


def motion_tokens_after_two_steps(std):
    torch.manual_seed(0)
    method = make_method("midway", {**SETTINGS, "motion_token_std": std}, {**MODEL, **HEADS}, TIMELINE)
    optimizer = method.make_optimizer()
    for step in range(2):
        take_step(method, optimizer, step, views())
    return method.network.model.dynamics.motion_tokens.detach()


def test_motion_tokens_that_start_equal_stay_equal():
    tokens = motion_tokens_after_two_steps(0.0)
    assert tokens.abs().max() > 1e-3
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens), rtol=1e-3, atol=1e-6)
    assert motion_tokens_after_two_steps(0.02).std(dim=1).min() > 1e-3


def test_drop_path_is_the_methods_and_the_students_alone():
    network = make(drop_path=0.5).network

    def rates(encoder):
        return [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.blocks]

    assert rates(network.model.student) == pytest.approx([0, 0.5 / 3, 1 / 3, 0.5])
    assert rates(network.model.teacher) == [0, 0, 0, 0]


@pytest.mark.parametrize(("name", "dynamics"), [("midway", True), ("dino", False)])
def test_what_is_exported_loads_as_a_network_and_gives_the_teachers_features(tmp_path, name, dynamics):
    method = make(name, drop_path=0.1)
    method.export().save_pretrained(tmp_path)
    loaded, images = MidwayNetwork.from_pretrained(tmp_path), views()["globals"][:, 0]
    assert loaded.config.dynamics is dynamics
    assert loaded.config.drop_path_rate == 0
    torch.testing.assert_close(loaded.encode(images).last, method.network.model.encode(images).last)


def test_a_configuration_object_serves_as_architecture():
    method = make_method("dino", SETTINGS, MidwayConfig(**MODEL, **HEADS), TIMELINE)
    assert method.network.model.config.embed_dim == 32
    assert not method.network.model.config.dynamics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mae"}, "there is no method 'mae'; methods:"),
        ({"name": "dino", "settings": METHODS["midway"].settings()}, "method dino got the settings of method 'midway'"),
        ({"model": {"target_network": "shared"}}, "method midway needs target_network 'ema', got 'shared'"),
        ({"model": {"dynamics": False}}, "method midway trains dynamics, but model.dynamics is false; method dino has"),
        ({"model": {"drop_path_rate": 0.1}}, "use method.drop_path instead"),
        ({"settings": {"betas": (0.9, 1.0)}}, "betas must be at least 0 and below 1, got (0.9, 1.0)"),
    ],
)
def test_what_does_not_fit_a_method_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        make_method(**{"name": "midway", "settings": {}, "model": {}, "timeline": TIMELINE, **arguments})
    assert message in str(error.value)


# -- how it runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_training_step_compiles_without_a_graph_break():
    method, batch = make(), views()
    torch._dynamo.reset()
    compiled = torch.compile(method.network, backend="aot_eager", fullgraph=True)
    plain = copy.deepcopy(method.network)
    (found,), (expected,) = backward(compiled, batch), backward(plain, batch)
    assert_same(found.losses, expected.losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.network.teacher_sum, plain.teacher_sum, rtol=1e-4, atol=1e-5)


def _process(rank, processes, folder):
    """Two steps of one process of several, in float64; the first one saves what came out."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    method = make()
    method.network.double()
    network, optimizer = DistributedDataParallel(method.network), method.make_optimizer()
    for step in range(2):
        mine = part(views(8, seed=step, dtype=torch.float64), rank, processes)
        for k in range(2):
            with network.no_sync() if k == 0 else nullcontext():
                (sum(network(part(mine, k, 2)).losses.values()) / 2).backward()
        method.before_update(step)
        method.schedule(optimizer, step)
        optimizer.step()
        method.after_update(step)
        optimizer.zero_grad()
    if rank == 0:
        torch.save(method.network.state_dict(), f"{folder}/{processes}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    for processes in (1, 2):
        mp.start_processes(_process, (processes, str(tmp_path)), nprocs=processes, start_method="spawn")
        (tmp_path / "meeting").unlink(missing_ok=True)
    one, two = (torch.load(tmp_path / f"{processes}.pt") for processes in (1, 2))
    assert_same(two, one, rtol=1e-9, atol=1e-10)
