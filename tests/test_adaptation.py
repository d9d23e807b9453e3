"""Adapting flow to one's own video: the losses, and a head that was spoiled and learns again."""

import json

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner

from midway_hub import MidwayNetwork
from midway_hub.adaptation import NotBetterError, adapt_flow, census_distance, photometric, smoothness
from midway_hub.cli import app
from midway_hub.registry import DEFAULT_MODEL
from midway_hub.training.data.synthetic import CLEAR, TextureSettings, WorldSettings, render_clip


def frames(seed=0, size=(24, 32)):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_the_census_is_that_of_its_formula():
    one, other = frames(0).double(), frames(1).double()
    weights = np.array([0.2989, 0.587, 0.114])
    grey = [255 * np.tensordot(weights, each[0].numpy(), 1) for each in (one, other)]
    y, x, total = 10, 12, 0.0
    for down in range(-3, 4):
        for right in range(-3, 4):
            differences = [each[y + down, x + right] - each[y, x] for each in grey]
            soft = [d / np.sqrt(0.81 + d * d) for d in differences]
            squared = (soft[0] - soft[1]) ** 2
            total += squared / (0.1 + squared)
    assert float(census_distance(one, other)[0, 0, y, x]) == pytest.approx(total, rel=1e-6)


def test_brightness_and_contrast_hardly_count():
    one = frames()
    changed = census_distance(one, 0.5 + 0.4 * one)[..., 3:-3, 3:-3].mean()
    assert changed < 0.05 * census_distance(one, frames(1))[..., 3:-3, 3:-3].mean()
    assert census_distance(one, one).abs().max() == 0


def test_occluded_pixels_and_the_border_do_not_count():
    one, other, flow = frames(0), frames(1), torch.zeros(1, 2, 24, 32)
    visible = torch.ones(1, 24, 32, dtype=torch.bool)
    visible[:, :, 16:] = False
    spoiled = other.clone()
    spoiled[..., 20:] = 0  # beyond what a census of a visible pixel sees
    assert torch.equal(photometric(one, other, flow, visible), photometric(one, spoiled, flow, visible))
    assert photometric(one, other, flow, torch.zeros_like(visible)) == 0


def test_the_right_flow_explains_a_shift_better_than_any_other():
    whole = frames(size=(40, 60))
    source, target = whole[..., 8:32, 8:40], whole[..., 6:30, 5:37]
    visible = torch.ones(1, 24, 32, dtype=torch.bool)
    errors = {
        shift: float(photometric(source, target, torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 24, 32), visible))
        for shift in ((3.0, 2.0), (0.0, 0.0), (2.0, 2.0), (3.5, 2.0))
    }
    assert min(errors, key=errors.get) == (3.0, 2.0)


def test_affine_flow_is_smooth_to_the_second_order_alone():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    affine = torch.stack([0.5 * x - 0.25 * y, 0.1 * y])[None]
    grey = torch.full((1, 3, 24, 32), 0.5)
    rest = 0.01**0.4
    assert float(smoothness(grey, affine, order=2)) == pytest.approx(rest, rel=0.01)
    assert float(smoothness(grey, affine, order=1)) > 2 * rest
    step = torch.zeros(1, 2, 24, 32)
    step[..., 16:] = 4
    edge = grey.clone()
    edge[..., 16:] = 1
    assert smoothness(edge, step, order=1) < smoothness(grey, step, order=1)
    with pytest.raises(ValueError, match="first or second order, got 3"):
        smoothness(grey, affine, order=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames of a world with a textured background, and the true flow between them."""
    folder = tmp_path_factory.mktemp("clip")
    settings = WorldSettings(
        size=(64, 96), objects=(1, 2), effects=CLEAR, textures=TextureSettings(tiles=4, tile_size=64)
    )
    world = render_clip(settings, 5, 9)
    for number, frame in enumerate(world.frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"{number:02d}.png")
    return folder, world


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """The bundled checkpoint with noise on its head."""
    net = MidwayNetwork.from_pretrained(DEFAULT_MODEL)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.flow_head.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.15 * parameter.std() * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("spoiled")
    net.save_pretrained(folder)
    return folder


def error(net, world):
    numbers = net.image_processor.normalisation
    seen = numbers(world.frames.float() / 255)
    with torch.no_grad():
        flow = net.flow(seen[:-1], seen[1:]).flow
    return float((flow - world.flow).norm(dim=1).mean())


def test_a_spoiled_head_learns_on_a_video_and_the_rest_stays_as_it_was(clip, spoiled, tmp_path):
    folder, world = clip
    net = MidwayNetwork.from_pretrained(spoiled)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = adapt_flow(net, folder, tmp_path / "out", steps=20, lr=3e-4)
    assert found.after < found.before
    assert found.held_back == 2
    assert found.pairs == 6
    adapted = MidwayNetwork.from_pretrained(tmp_path / "out")
    assert error(adapted, world) < error(net, world)
    changed = [name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.split(".")[0] for name in changed} == {"flow_head"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    facts = json.loads((tmp_path / "out/adaptation.json").read_text())
    assert facts["fell_by"] == pytest.approx(1 - found.after / found.before, abs=1e-3)
    with Image.open(tmp_path / "out/adaptation.png") as picture:
        assert picture.width > 4 * 96


def test_what_got_worse_is_not_saved(clip, tmp_path):
    folder, _ = clip
    ran = CliRunner().invoke(
        app, ["adapt-flow", str(folder), "-o", str(tmp_path / "out"), "--steps", "2", "--lr", "1.0"]
    )
    assert ran.exit_code == 1
    assert "nothing is saved" in " ".join(ran.stderr.split())
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_the_best_so_far(clip, spoiled, tmp_path):
    folder, _ = clip

    def interrupt(what, done, total):
        if what == "adapting" and done > 600:
            raise KeyboardInterrupt

    net = MidwayNetwork.from_pretrained(spoiled)
    found = adapt_flow(net, folder, tmp_path / "out", steps=20, lr=3e-4, progress=interrupt)
    assert found.interrupted
    assert found.steps < 20
    assert (tmp_path / "out/model.safetensors").is_file()


def test_what_cannot_be_adapted_is_refused(clip, tmp_path):
    folder, _ = clip
    dpt = make_tiny_net(flow_head={"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4})
    with pytest.raises(ValueError, match="adaptation is of correlation heads"):
        adapt_flow(dpt, folder, tmp_path / "out")
    net = MidwayNetwork.from_pretrained(DEFAULT_MODEL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        adapt_flow(net, folder, tmp_path / "full")
    with pytest.raises(ValueError, match="has 4 pairs of frames 5 apart; adaptation needs 6"):
        adapt_flow(net, folder, tmp_path / "out", every=5)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        adapt_flow(net, folder, tmp_path / "out", every=0)
    with pytest.raises(ValueError, match="minutes must be positive"):
        adapt_flow(net, folder, tmp_path / "out", minutes=0)
    assert issubclass(NotBetterError, ValueError)
