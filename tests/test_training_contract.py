"""What holds for every registered method: it resumes, exports what it trained, and reads all that it is told."""

import shutil
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from midway_hub import load_encoder
from midway_hub.training.build import build_parts
from midway_hub.training.config import RunConfig, load_config, parse_config
from midway_hub.training.data.needs import Crops, Frames, Needs, Views
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.methods import METHODS, HubMethod, register
from midway_hub.training.methods.base import hub_network
from midway_hub.training.methods.optimisation import AdamWSettings
from midway_hub.training.pretraining import pretrain, trace_run
from midway_hub.training.recipes import list_recipes
from midway_hub.training.settings import Settings

NAMES = sorted(METHODS)
TINY = (
    "model.embed_dim=48",
    "model.depth=3",
    "model.num_heads=4",
    "model.levels=[1]",
    "model.motion_dim=16",
    "data.workers=0",
    "data.visits_per_step=2",
    "data.pairs_per_visit=2",
    "data.world.size=[48,64]",
    "data.world.textures.tiles=4",
    "data.world.textures.tile_size=64",
    "engine.log_every=1",
    "engine.progress=false",
)
OWN = {"densecl": ["method.queue=64"]}
CPU = torch.device("cpu")


def tiny(name, *overrides) -> RunConfig:
    return load_config(f"small/{name}", [*TINY, *OWN.get(name, ()), "steps=4", *overrides])


def steps(config, count, **options):
    """Take steps by hand; returns the method and the network's state before and after."""
    parts = build_parts(config, **options)
    method = parts.method
    optimizer = method.make_optimizer()
    before = {name: value.clone() for name, value in method.network.state_dict().items()}
    torch.manual_seed(5)
    method.network.train()
    accumulate = config.engine.accumulate
    batches = parts.batches.iterate(0, count * accumulate)
    for step in range(count):
        method.schedule(optimizer, step)
        for _ in range(accumulate):
            output = method.network(parts.batches.finish(next(batches), CPU))
            (sum(output.losses.values()) / accumulate).backward()
        method.before_update(step)
        optimizer.step()
        method.after_update(step)
        optimizer.zero_grad()
    return method, before, method.network.state_dict()


def test_there_is_a_small_recipe_for_every_method():
    small = {name.removeprefix("small/") for name in list_recipes("pretrain") if name.startswith("small/")}
    assert set(NAMES) <= small


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_went_on_from_a_checkpoint_has_the_same_weights_bit_by_bit(name, tmp_path):
    config = tiny(name, "engine.checkpoint_every_steps=2", "engine.keep_last=4")
    pretrain(config, tmp_path / "run")
    whole = load_file(tmp_path / "run" / "checkpoints" / "step_4" / "network.safetensors")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_4")
    shutil.rmtree(tmp_path / "run" / "export")
    pretrain(config, tmp_path / "run")
    again = load_file(tmp_path / "run" / "checkpoints" / "step_4" / "network.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_the_encoder_that_was_trained(name, tmp_path):
    config = tiny(name, "method.warmup_epochs=0")
    pretrain(config, tmp_path / "run")
    loaded = load_encoder(tmp_path / "run" / "export")
    method = build_parts(config).method
    fresh = method.export()
    method.network.load_state_dict(load_file(tmp_path / "run" / "checkpoints" / "step_4" / "network.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, trained, untrained = (net.encode(images).last for net in (loaded, method.export(), fresh))
    torch.testing.assert_close(features, trained, rtol=1e-4, atol=1e-5)
    assert (features - untrained).abs().max() > 1e-4, "an untrained encoder was exported"


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_moves_and_every_average_follows(name):
    method, before, after = steps(tiny(name, "steps=8", "method.warmup_epochs=0", *_unfrozen(name)), 3)
    still = [
        key for key, p in method.network.named_parameters() if p.requires_grad and torch.equal(before[key], after[key])
    ]
    assert not [key for key in still if not key.endswith(_MAY_REST)], still
    averages = {id(p) for p in method.teacher.averages}
    names = {id(p): key for key, p in method.network.named_parameters()}
    assert all(not torch.equal(before[names[each]], after[names[each]]) for each in averages)


_MAY_REST = (
    "reg_token",  # at 1e-6 their keys are those of any other
    "last_layer.parametrizations.weight.original0",
)


def _unfrozen(name):
    return (
        ["method.freeze_last_layer_epochs=0"]
        if "freeze_last_layer_epochs" in METHODS[name].settings.model_fields
        else []
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_methods_sections_is_read(name, monkeypatch):
    read = defaultdict(set)
    original = Settings.__getattribute__

    def recording(self, field):
        read[type(self)].add(field)
        return original(self, field)

    config = tiny(name)
    monkeypatch.setattr(Settings, "__getattribute__", recording)
    steps(config, 1)
    trace_run(config)
    if "milestones" in METHODS[name].settings.model_fields:
        steps(tiny(name, "method.milestones=[]"), 1)
    monkeypatch.undo()
    method = METHODS[name]
    for section in (method.settings, method.views, method.oddities):
        seen = set().union(*(fields for kind, fields in read.items() if issubclass(kind, section) or kind is section))
        loop = {"lr_counts_repeats", "epochs_advance_by_repeats", "same_seed_on_every_rank"}  # read by the plan alone
        assert set(section.model_fields) - seen - loop - {"name"} == set(), section.__name__


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reads_as_a_map(name):
    text = trace_run(tiny(name))
    assert "Losses (their sum is minimised)" in text
    losses = text.split("Losses")[1].split("Diagnostics")[0]
    assert " -\n" not in losses.replace("  ", " "), "every loss says where its formula is"


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_and_exact_in_half_precision(name):
    parts = build_parts(tiny(name))
    batch = parts.batches.finish(next(iter(parts.batches.iterate(0, 1))), CPU)
    parts.method.network.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = parts.method.network(batch)
    assert {loss.dtype for loss in output.losses.values()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in {**output.losses, **output.diagnostics}.values())
    sum(output.losses.values()).backward()


STATELESS = ("croco", "dino", "dynamo", "midway", "tdv", "densecl")
"""Methods whose samples do not meet within a micro-batch, so that two micro-batches make one batch."""


@pytest.mark.parametrize("name", STATELESS)
def test_two_micro_batches_leave_the_centres_and_queues_of_one_batch(name):
    overrides = ["method.warmup_epochs=0", *(["method.mask_ratio=0.5"] if name == "croco" else [])]
    _, _, one = steps(tiny(name, *overrides), 2)
    _, _, two = steps(tiny(name, *overrides, "engine.accumulate=2"), 2)
    states = [key for key in one if any(word in key for word in ("centre", "queue"))]
    assert name == "croco" or states
    for key in states:
        torch.testing.assert_close(one[key].float(), two[key].float(), rtol=2e-2, atol=2e-3)


# A method from outside of the package


class MiddleViews(Views):
    """The middle frame of three, and what is around it."""

    size: int = 32
    """Side of a view."""

    def needs(self) -> Needs:
        square = Crops((self.size, self.size), area=(0.5, 1.0), same_box=True, geometry=True)
        return Needs(Frames("window", 3), {"frames": square})


class MiddleSettings(AdamWSettings):
    """Numbers of the toy."""

    name: str = "middle"


class MiddleNetwork(nn.Module):
    def __init__(self, config):
        super().__init__()
        from midway_hub import MidwayNetwork

        self.model = MidwayNetwork(config)
        self.guess = nn.Linear(2 * config.embed_dim, config.embed_dim)

    def forward(self, batch):
        assert batch["frames/to_frame"].shape[1:] == (3, 2, 3)
        (tokens,) = self.model.student.tokens(batch["frames"].flatten(0, 1), (self.model.config.depth - 1,))
        first, middle, last = tokens[:, 0].unflatten(0, (-1, 3)).unbind(1)
        return StepOutput({"middle": middle_loss(self.guess(torch.cat([first, last], dim=1)), middle.detach())})


def middle_loss(guess, middle):
    """The frame in between is the mean of its neighbours, or not."""
    return F.mse_loss(guess, middle)


@dataclass
class _Registered:
    method: type


@pytest.fixture
def middle():
    @register
    class Middle(HubMethod):
        name = "middle"
        settings = MiddleSettings
        views = MiddleViews
        unit = "clips"
        formulas: ClassVar = {"middle": middle_loss}

        def make_network(self, model):
            return MiddleNetwork(hub_network(model, self.name, target_network="shared"))

    yield _Registered(Middle)
    del METHODS["middle"]


def test_a_method_of_three_frames_from_outside_needs_nothing_but_its_registration(middle, tmp_path):
    values = load_config("small/croco", [*TINY, "steps=3"]).to_dict()
    values |= {"method": {"name": "middle", "base_lr": 0.05, "warmup_epochs": 0}, "views": {"size": 32}, "compat": {}}
    config = parse_config(values)
    outcome = pretrain(config, tmp_path / "run")
    assert outcome.state == "finished"
    assert load_encoder(tmp_path / "run" / "export").encode(torch.randn(1, 3, 32, 32)).last.shape == (1, 48, 4, 4)
    assert "clips per step" in (tmp_path / "run" / "derived.json").read_text()
    assert "middle_loss" in trace_run(config)
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3


def test_two_methods_of_one_name_are_refused(middle):
    class Other(middle.method):
        pass

    with pytest.raises(ValueError, match="there is a method 'middle' already"):
        register(Other)
