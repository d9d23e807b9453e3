"""Flow and segmentation as tasks: what is trained, at which rate, and what becomes of the rest."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_tiny_net

from midway_hub.heads import IGNORE, FlowHeadConfig
from midway_hub.training.configuration import ConfigError
from midway_hub.training.losses import prediction_loss
from midway_hub.training.recipes import list_recipes
from midway_hub.training.tasks.config import load_task_config
from midway_hub.training.tasks.flow import FlowSettings, FlowTask
from midway_hub.training.tasks.optimisation import OptimisationSettings, layer_of, parameter_groups
from midway_hub.training.tasks.plan import make_task_plan
from midway_hub.training.tasks.running import forecast
from midway_hub.training.tasks.segmentation import SegmentationSettings, SegmentationTask, head_config
from midway_hub.training.tasks.start import StartSettings, starting_network
from midway_hub.training.timeline import Timeline

FLOW_HEAD = FlowHeadConfig(layer_dims=(8, 8, 8, 8), feature_dim=8, last_dim=8, tile=(32, 32))
CLASSES, PALETTE = ("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0))
LINE = Timeline(steps=100, steps_per_epoch=10, batch_size=2, visits_per_step=2)
BATCH = {
    "source": torch.randn(2, 3, 32, 48),
    "target": torch.randn(2, 3, 32, 48),
    "flow": torch.randn(2, 2, 32, 48),
    "valid": torch.rand(2, 32, 48) < 0.7,
}
PICTURES = {"image": torch.randn(2, 3, 32, 48), "labels": torch.randint(0, 3, (2, 32, 48), dtype=torch.uint8)}


def saved(tmp_path, **changes):
    make_tiny_net(**changes).save_pretrained(tmp_path / "net")
    return str(tmp_path / "net")


def flow_network(tmp_path, *, net=None, **start):
    settings = StartSettings(weights=net or saved(tmp_path), **start)
    return starting_network(settings, FLOW_HEAD, which="flow_head", seed=0)


def segmentation_settings(**head):
    return SegmentationSettings(head={"layers": (-1,), **head})


def segmentation_task(tmp_path, *, freeze=True, **head):
    settings = segmentation_settings(**head)
    start = StartSettings(weights=saved(tmp_path), freeze=freeze)
    head = head_config(settings, CLASSES, PALETTE)
    network = starting_network(start, head, which="segmentation_head", seed=0)
    return SegmentationTask(network, settings, LINE, freeze=freeze)


def take_steps(task, batch, steps=3):
    optimizer = task.make_optimizer()
    task.network.train()
    for step in range(50, 50 + steps):
        task.schedule(optimizer, step)
        sum(task.network(batch).losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return task


# -- what it starts from


def test_a_flow_network_keeps_one_encoder_the_teacher(tmp_path):
    net = make_tiny_net()
    torch.nn.init.normal_(net.teacher.pos_embed)
    net.save_pretrained(tmp_path / "net")
    network = flow_network(tmp_path, net=str(tmp_path / "net"))
    assert network.config.target_network == "shared"
    assert torch.equal(network.student.pos_embed, net.teacher.pos_embed)


def test_the_student_can_be_kept_instead(tmp_path):
    net = make_tiny_net()
    torch.nn.init.normal_(net.teacher.pos_embed)
    net.save_pretrained(tmp_path / "net")
    network = flow_network(tmp_path, net=str(tmp_path / "net"), encoder="student")
    assert torch.equal(network.student.pos_embed, net.student.pos_embed)


def test_pretrained_dynamics_are_kept(tmp_path):
    net = make_tiny_net()
    torch.nn.init.normal_(net.dynamics.motion_tokens)
    net.save_pretrained(tmp_path / "net")
    kept = flow_network(tmp_path, net=str(tmp_path / "net"))
    assert torch.equal(kept.dynamics.motion_tokens, net.dynamics.motion_tokens)


def test_encoder_only_starts_with_new_dynamics_and_the_same_encoder(tmp_path):
    net = make_tiny_net()
    for parameter in net.dynamics.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    net.save_pretrained(tmp_path / "net")
    network = flow_network(tmp_path, net=str(tmp_path / "net"), dynamics="reinitialised")
    assert not any((parameter == 7).any() for parameter in network.dynamics.parameters())
    kept = net.teacher.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in network.student.state_dict().items())


def test_a_head_of_the_same_configuration_goes_on(tmp_path):
    first = flow_network(tmp_path)
    first.save_pretrained(tmp_path / "again")
    again = flow_network(tmp_path, net=str(tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def head_tensors(network, which="flow_head"):
    return {name: value for name, value in network.state_dict().items() if name.startswith(f"{which}.")}


@pytest.mark.parametrize("changes", [{"tile": (48, 64)}, {"tiled": True}, {"scale_bounds": (0.5, 3.0)}])
def test_a_flow_head_goes_on_whatever_its_crop_tiles_and_bounds(tmp_path, changes, caplog):
    first = flow_network(tmp_path)
    first.save_pretrained(tmp_path / "again")
    caplog.set_level("INFO", logger="midway_hub")
    start, wanted = StartSettings(weights=str(tmp_path / "again")), replace(FLOW_HEAD, **changes)
    again = starting_network(start, wanted, which="flow_head", seed=1)
    kept = head_tensors(again)
    assert all(torch.equal(kept[name], value) for name, value in head_tensors(first).items())
    assert again.config.flow_head == wanted.to_dict()
    assert f"flow head: all {len(kept)} tensors are the checkpoint's" in caplog.text


def test_of_a_flow_head_of_another_width_what_fits_goes_on_and_the_rest_is_named(tmp_path, caplog):
    first = flow_network(tmp_path)
    first.save_pretrained(tmp_path / "again")
    caplog.set_level("INFO", logger="midway_hub")
    caplog.clear()
    start, wanted = StartSettings(weights=str(tmp_path / "again")), replace(FLOW_HEAD, last_dim=16)
    again = head_tensors(starting_network(start, wanted, which="flow_head", seed=1))
    before = head_tensors(first)
    fits = {name for name, value in before.items() if value.shape == again[name].shape}
    assert fits
    assert fits != set(before)
    assert all(torch.equal(again[name], before[name]) for name in fits)
    (line,) = (message for message in caplog.messages if message.startswith("flow head"))
    assert f"{len(fits)} tensors are the checkpoint's, {len(before) - len(fits)} start anew: " in line
    assert "the checkpoint's is 8" in line


OTHER_HEAD = replace(FLOW_HEAD, layer_dims=(4, 4, 4, 4), feature_dim=4, scale_bounds=(0.5, 3.0), tiled=True)


@pytest.mark.parametrize(
    "named", [(), ("tiled",), ("layer_dims",), ("feature_dim", "last_dim"), ("scale_bounds", "tiled")]
)
def test_what_a_run_does_not_name_of_a_flow_head_is_as_in_the_checkpoint(tmp_path, named):
    flow_network(tmp_path).save_pretrained(tmp_path / "again")
    start, wanted = StartSettings(weights=str(tmp_path / "again")), replace(OTHER_HEAD, tile=(48, 64))
    head = starting_network(start, wanted, which="flow_head", seed=1, named=named).flow_head.config
    for name in ("layer_dims", "feature_dim", "last_dim", "scale_bounds", "tiled"):
        assert getattr(head, name) == getattr(wanted if name in named else FLOW_HEAD, name)
    assert head.tile == (48, 64)  # the crop is the run's, whatever the checkpoint's


def test_without_a_head_in_the_checkpoint_a_run_gets_the_one_that_it_describes(tmp_path):
    start = StartSettings(weights=saved(tmp_path))
    assert starting_network(start, OTHER_HEAD, which="flow_head", seed=1, named=()).flow_head.config == OTHER_HEAD


@pytest.mark.parametrize(("named", "slide"), [((), (32, 16)), (("slide",), None), (("layers",), (32, 16))])
def test_a_segmentation_head_goes_on_seeing_through_its_windows(tmp_path, named, slide):
    segmentation_start(saved(tmp_path), slide=(32, 16)).save_pretrained(tmp_path / "again")
    head = head_config(segmentation_settings(), CLASSES, PALETTE)
    start = StartSettings(weights=str(tmp_path / "again"), freeze=True)
    again = starting_network(start, head, which="segmentation_head", seed=1, named=named)
    assert again.segmentation_head.config.slide == slide


def segmentation_start(weights, classes=CLASSES, *, freeze=True, dynamics="pretrained", **head):
    start = StartSettings(weights=str(weights), freeze=freeze, dynamics=dynamics)
    palette = tuple((n, n, n) for n in range(len(classes)))
    return starting_network(
        start, head_config(segmentation_settings(**head), classes, palette), which="segmentation_head", seed=1
    )


UPERNET = {"name": "upernet", "layers": (0, 1, 1, 2), "channels": 16, "pool_scales": (1, 2)}


@pytest.mark.parametrize(
    ("classes", "head", "fresh"),
    [
        (CLASSES, {"slide": (32, 16), "dropout": 0.5}, ()),
        (("sky", "road", "lorry"), {}, ("decoder.classifier.weight", "decoder.classifier.bias")),
        (("sky", "road"), {}, ("decoder.classifier.weight", "decoder.classifier.bias")),
        (CLASSES, {"neck": "none"}, ()),
    ],
)
def test_a_segmentation_head_goes_on_but_for_a_classifier_of_other_classes(tmp_path, classes, head, fresh):
    first = segmentation_start(saved(tmp_path), **UPERNET)
    for value in head_tensors(first, "segmentation_head").values():
        if value.is_floating_point():
            torch.nn.init.normal_(value)
    first.save_pretrained(tmp_path / "again")
    again = segmentation_start(tmp_path / "again", classes, **(UPERNET | head))
    before, after = (head_tensors(network, "segmentation_head") for network in (first, again))
    anew = {f"segmentation_head.{name}" for name in fresh}
    for name, value in after.items():
        assert torch.equal(value, before[name]) is (name not in anew), name


@pytest.mark.parametrize(("features", "layers"), [("encoder", (1,)), ("backward", (-1,))])
def test_new_dynamics_take_a_head_along_that_reads_them_alone(tmp_path, features, layers):
    first = segmentation_start(saved(tmp_path), features=features, layers=layers)
    first.save_pretrained(tmp_path / "again")
    again = segmentation_start(tmp_path / "again", dynamics="reinitialised", features=features, layers=layers)
    name = "segmentation_head.decoder.classifier.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name]) is (features == "encoder")


def test_flow_of_an_encoder_alone_wants_new_dynamics(tmp_path):
    make_tiny_net(dynamics=False).save_pretrained(tmp_path / "dino")
    with pytest.raises(ValueError, match=r"an encoder alone, .*start\.dynamics=reinitialised makes new ones"):
        flow_network(tmp_path, net=str(tmp_path / "dino"))
    network = flow_network(tmp_path, net=str(tmp_path / "dino"), dynamics="reinitialised")
    assert network.predict_flow(BATCH["source"], BATCH["target"]).shape == (2, 3, 32, 48)


def test_a_dry_run_tells_what_is_kept_as_the_run_itself_does(tmp_path):
    first = flow_network(tmp_path)
    first.save_pretrained(tmp_path / "again")
    head = "{layer_dims: [8, 8, 8, 8], feature_dim: 8, last_dim: 16}"
    told = {}
    for weights in (tmp_path / "again", "nobody/has_this"):
        overrides = [f"start.weights={weights}", f"task.head={head}", "data.workers=0"]
        config = load_task_config("flow", "flow_synthetic_small", overrides)
        told[weights] = {derived.name: derived.value for derived in forecast(config).derived}
    rows = told[tmp_path / "again"]
    assert rows["weights of the encoder"].startswith("all ")
    assert rows["weights of the dynamics"].startswith("all ")
    assert " start anew: flow_head." in rows["weights of the flow head"]
    assert told["nobody/has_this"]["kept of the checkpoint"] == "known once it is here"


def test_a_frozen_readout_keeps_the_other_head(tmp_path):
    flow_network(tmp_path).save_pretrained(tmp_path / "flow")
    start = StartSettings(weights=str(tmp_path / "flow"), freeze=True)
    head = head_config(segmentation_settings(), CLASSES, PALETTE)
    assert starting_network(start, head, which="segmentation_head", seed=0).has_flow_head


def test_training_everything_leaves_the_other_head_out(tmp_path, caplog):
    flow_network(tmp_path).save_pretrained(tmp_path / "flow")
    head = head_config(segmentation_settings(), CLASSES, PALETTE)
    start = StartSettings(weights=str(tmp_path / "flow"))
    assert not starting_network(start, head, which="segmentation_head", seed=0).has_flow_head
    assert "flow_head is left out" in caplog.text


def test_an_untrained_network_depends_on_the_seed_alone():
    model = {"image_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 2, "levels": [1], "motion_dim": 16,
             "midway_heads": 2, "backward_heads": 2, "predictor_heads": 2}  # fmt: skip
    make = [starting_network(StartSettings(model=model), FLOW_HEAD, which="flow_head", seed=s) for s in (1, 1, 2)]
    weights = [network.flow_head.state_dict() for network in make]
    name = next(key for key in weights[0] if key.endswith("weight"))
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


# -- frozen readout


def test_a_frozen_readout_leaves_everything_else_bit_for_bit(tmp_path):
    task = segmentation_task(tmp_path)
    before = {k: v.clone() for k, v in task.network.model.state_dict().items() if "segmentation_head" not in k}
    head = {k: v.clone() for k, v in task.network.model.segmentation_head.state_dict().items()}
    after = take_steps(task, PICTURES).network.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not all(torch.equal(after[f"segmentation_head.{name}"], value) for name, value in head.items())


def test_a_frozen_readout_stays_in_eval_mode_but_for_its_head(tmp_path):
    network = segmentation_task(tmp_path).network.train()
    assert not network.model.student.training
    assert not any(module.training for module in network.model.dynamics.modules())
    assert all(module.training for module in network.model.segmentation_head.modules())
    assert not network.eval().model.segmentation_head.training


def test_finetuning_trains_encoder_dynamics_and_head(tmp_path):
    task = FlowTask(flow_network(tmp_path), FlowSettings(), LINE)
    before = {name: value.clone() for name, value in task.network.model.named_parameters()}
    after = dict(take_steps(task, BATCH).network.model.named_parameters())
    for part in ("student.", "dynamics.", "flow_head."):
        assert any(not torch.equal(after[n], v) for n, v in before.items() if n.startswith(part)), part


def test_what_no_loss_depends_on_is_not_trained(tmp_path):
    flow = FlowTask(flow_network(tmp_path), FlowSettings(), LINE)
    pictures = segmentation_task(tmp_path, freeze=False)
    for task, batch in ((flow, BATCH), (pictures, PICTURES)):
        sum(task.network.train()(batch).losses.values()).backward()
        for name, parameter in task.network.named_parameters():
            assert parameter.requires_grad == (parameter.grad is not None), name
    trained = {name.split(".")[1] for name, p in pictures.network.named_parameters() if p.requires_grad}
    assert trained == {"student", "segmentation_head"}


# -- loss


def test_invalid_flow_changes_neither_loss_nor_gradient(tmp_path):
    task = FlowTask(flow_network(tmp_path), FlowSettings(), LINE)
    task.network.eval()
    garbage = torch.where(BATCH["valid"][:, None], BATCH["flow"], torch.tensor(math.nan))
    clean, dirty = (task.network({**BATCH, "flow": flow}) for flow in (BATCH["flow"], garbage))
    torch.testing.assert_close(clean.losses["flow"], dirty.losses["flow"])
    assert torch.isfinite(dirty.diagnostics["epe"])


def test_cross_entropy_is_averaged_over_all_pixels_as_in_mmsegmentation(tmp_path):
    task = segmentation_task(tmp_path)
    labels = PICTURES["labels"].clone()
    labels[:, :10] = IGNORE
    task.network.eval()
    logits = task.network.model.predict_classes(PICTURES["image"])
    logits = F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False).double()
    each = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
    found = task.network({**PICTURES, "labels": labels}).losses["segmentation"]
    torch.testing.assert_close(found.double(), each.mean(), atol=1e-5, rtol=1e-5)


def test_a_batch_without_labels_has_no_loss_and_no_nan(tmp_path):
    for mean_over in ("all", "valid"):
        task = segmentation_task(tmp_path)
        task.network.settings = task.network.settings.model_copy(update={"mean_over": mean_over})
        labels = torch.full((2, 32, 48), IGNORE, dtype=torch.uint8)
        loss = task.network({**PICTURES, "labels": labels}).losses["segmentation"]
        loss.backward()
        assert loss == 0


def test_upernet_has_an_auxiliary_loss_of_its_weight_and_does_not_export_it(tmp_path):
    task = segmentation_task(tmp_path, name="upernet", layers=(0, 1, 1, 2), channels=16, pool_scales=(1, 2))
    losses = task.network(PICTURES).losses
    assert set(losses) == {"segmentation", "auxiliary"}
    assert losses["auxiliary"].item() == pytest.approx(0.4 * math.log(3), rel=0.5)
    assert not any("auxiliary" in name for name in task.export().state_dict())
    assert any("auxiliary" in name for name, _ in task.network.named_parameters())


# -- optimisation


def test_layers_are_counted_as_in_mmsegmentation():
    names = {
        "student.pos_embed": 0,
        "student.patch_embed.proj.weight": 0,
        "student.cls_token": 0,
        "student.blocks.0.attn.qkv.weight": 1,
        "student.blocks.11.mlp.fc1.bias": 12,
        "student.norm.weight": 13,
        "dynamics.motion_tokens": 13,
        "segmentation_head.decoder.weight": 13,
    }
    assert {name: layer_of(name, 13) for name in names} == names


def test_layer_decay_scales_each_layer_once_more_than_the_one_above(tmp_path):
    network = flow_network(tmp_path)
    groups = parameter_groups(network, None, OptimisationSettings(layer_decay=0.5))
    scales = {group["name"]: group["scale"] for group in groups}
    assert scales["layer_0_matrices"] == 0.5 ** (network.config.depth + 1)
    assert scales[f"layer_{network.config.depth + 1}_matrices"] == 1


def test_parameters_of_one_dimension_do_not_decay(tmp_path):
    for group in parameter_groups(flow_network(tmp_path), None, OptimisationSettings(weight_decay=0.1)):
        decays = [parameter.ndim >= 2 for parameter in group["params"]]
        assert set(decays) == {group["weight_decay"] > 0}


def test_every_trainable_parameter_is_in_one_group(tmp_path):
    task = segmentation_task(
        tmp_path, freeze=False, name="upernet", layers=(0, 1, 1, 2), channels=16, pool_scales=(1, 2)
    )
    grouped = [id(p) for group in task.make_optimizer().param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in task.network.parameters() if p.requires_grad}


def test_the_cosine_rises_over_an_epoch_and_ends_at_its_least():
    optimisation = OptimisationSettings(lr=1.0, min_lr=0.1)
    rates = [optimisation.learning_rate(step, LINE) for step in range(101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_the_straight_line_starts_after_the_warm_up_as_in_mmsegmentation():
    optimisation = OptimisationSettings(
        lr=2.0, schedule="poly", warmup_epochs=None, warmup_steps=20, warmup_start=1e-6, weight_decay=0
    )
    rates = [optimisation.learning_rate(step, LINE) for step in range(101)]
    assert rates[0] == pytest.approx(2e-6)
    assert rates[20] == 2.0
    assert rates[60] == pytest.approx(2.0 * (1 - (60 - 20) / (100 - 20)))
    assert rates[100] == 0


def test_one_warm_up_is_wanted_not_two():
    with pytest.raises(ValueError, match="exactly one of warmup_epochs and warmup_steps"):
        OptimisationSettings(warmup_epochs=1, warmup_steps=10)


# -- recipes and configuration


@pytest.mark.parametrize("kind", ["flow", "segmentation"])
def test_every_recipe_is_valid(kind):
    for recipe in list_recipes(kind):
        assert load_task_config(kind, recipe).kind == kind


def test_the_paper_s_flow_run_has_900000_steps():
    config = load_task_config("flow", "paper/flow_vits")
    timeline = make_task_plan(config, items=793_052, world_size=1).timeline
    assert (timeline.steps, timeline.steps_per_epoch) == (900_000, 3_750)
    assert config.task.optimisation.rising_steps(timeline) == 3_750


def test_a_batch_that_cannot_be_shared_is_refused():
    config = load_task_config("flow", "flow_synthetic_small")
    with pytest.raises(ConfigError, match="multiple of 3"):
        make_task_plan(config, items=100, world_size=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.optimisation.schedul=poly", "did you mean 'task.optimisation.schedule'"),
        ("task.head.tile=[32,32]", "data.crop"),
        ("task.head.layer_dims=[1,2]", "four widths"),
        ("start.model.widht=3", "unknown key 'start.model.widht'"),
        ("data.source=files", "parts"),
        ("start.dynamics=new", "pretrained"),
    ],
)
def test_a_wrong_setting_of_flow_says_what_is_wanted(override, message):
    with pytest.raises(ConfigError, match=message):
        load_task_config("flow", "flow_synthetic_small", [override])


def test_a_mixture_without_folders_says_which_setting_names_one():
    config = load_task_config("flow", "paper/flow_vits")
    with pytest.raises(ConfigError, match=r"data\.roots\.sintel=FOLDER"):
        config.data.examples()


def test_the_data_decide_the_classes_of_a_head():
    with pytest.raises(ConfigError, match="leave classes out of the head"):
        load_task_config("segmentation", "segmentation_synthetic_small", ["task.head.classes=[a,b]"])


def test_the_dense_prediction_can_be_trained_beside_the_flow_and_does_not_train_its_target(tmp_path):
    torch.manual_seed(0)
    model = flow_network(tmp_path)
    plain = FlowTask(model, FlowSettings(), LINE).network
    both = FlowTask(model, FlowSettings(dynamics_weight=0.5), LINE).network
    losses = both(BATCH).losses
    levels = [f"dynamics_{level}" for level in model.config.levels]
    assert list(losses) == ["flow", *levels]
    assert losses["flow"].item() == pytest.approx(plain(BATCH).losses["flow"].item())
    motion = model.infer_motion(BATCH["source"], BATCH["target"])
    target = model.dynamics_tokens(BATCH["target"], "teacher")
    expected = [
        0.5 * prediction_loss(predicted, target[level].detach())
        for level, predicted in zip(motion.levels, motion.predicted, strict=True)
    ]
    for level, value in zip(levels, expected, strict=True):
        assert losses[level].item() == pytest.approx(value.item())
    weights = list(model.student.parameters())
    found = torch.autograd.grad(sum(losses[level] for level in levels), weights, allow_unused=True)
    wanted = torch.autograd.grad(sum(expected), weights, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_of_flow_and_segmentation_exports_what_it_computes(tmp_path):
    task = FlowTask(flow_network(tmp_path), FlowSettings(), LINE)
    task.network.eval()
    exported = task.export()
    with torch.no_grad():
        expected = task.network.model.predict_flow(BATCH["source"], BATCH["target"])
        found = exported.predict_flow(BATCH["source"], BATCH["target"])
    np.testing.assert_allclose(found, expected, atol=1e-6)
