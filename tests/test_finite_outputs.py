"""Whatever a network computes that is not finite is said, by every command, and nothing is written of it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import numbered_frame, write_clip

from midway_hub import _console
from midway_hub._tensors import need_finite
from midway_hub.analysis.attention import cls_attention
from midway_hub.analysis.perturbation import jacobian_heatmaps, perturbation_heatmaps
from midway_hub.analysis.tracks import Tracks
from midway_hub.analysis.trajectories import motion_latents
from midway_hub.cli import app
from midway_hub.dense import flow_between, labels_of
from midway_hub.training.__main__ import app as training_app
from midway_hub.training.data.synthetic import CLASSES as WORLD_CLASSES
from midway_hub.training.data.synthetic import PALETTE as WORLD_PALETTE

SHALLOW = {"depth": 3, "levels": (1, 0), "midway_depth": 1, "predictor_depth": 2}
HEADS = {
    "flow_head": {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4},
    "segmentation_head": {"classes": WORLD_CLASSES, "palette": WORLD_PALETTE, "layers": [2]},
}
SAID = "values that are NaN or infinite"
ADVICE = "In float16 numbers overflow: try float32"


@pytest.fixture
def net():
    return make_tiny_net(**SHALLOW, **HEADS)


def broken(net):
    """Put a NaN among the weights, where everything is behind it."""
    with torch.no_grad():
        for encoder in (net.student, net.teacher):
            encoder.blocks[0].attn.proj.bias[0] = torch.nan
    return net


def overflowing(net):
    """Let values overflow in float16, where float32 computes as before: times and then by a large factor."""
    factor = 2e5
    with torch.no_grad():
        for encoder in (net.student, net.teacher):
            attention = encoder.blocks[1].attn
            attention.qkv.weight[2 * 48 :] *= factor
            attention.qkv.bias[2 * 48 :] *= factor
            attention.proj.weight /= factor
    return net


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A network with a NaN among its weights, and one that overflows in float16."""
    folder = tmp_path_factory.mktemp("checkpoints")
    broken(make_tiny_net(**SHALLOW, **HEADS)).save_pretrained(folder / "nan")
    overflowing(make_tiny_net(**SHALLOW, **HEADS)).save_pretrained(folder / "overflow")
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, number in (("a", 0), ("b", 4)):
        Image.fromarray(numbered_frame(number)[:64, :96]).save(folder / f"{name}.png")
    labels = np.zeros((96, 128), np.uint8)
    labels[30:60, 40:80] = 1
    Image.fromarray(labels).save(folder / "labels.png")
    write_clip(folder / "clip.mp4", 5)
    return folder


# -- the commands ------------------------------------------------------------------------------------------------------

COMMANDS = {
    "features": ["features", "a.png", "-o", "out"],
    "motion": ["motion", "clip.mp4", "-o", "out"],
    "flow numbers": ["flow", "a.png", "b.png", "-o", "out/x.flo"],
    "flow picture": ["flow", "a.png", "b.png", "-o", "out/x.png"],
    "flow in tiles": ["flow", "a.png", "b.png", "-o", "out/x.npz", "--tile", "32x32"],
    "flow video": ["flow", "clip.mp4", "-o", "out/x.mp4"],
    "segment": ["segment", "a.png", "-o", "out/x.png", "--labels", "out/l.png"],
    "segment video": ["segment", "clip.mp4", "-o", "out/x.mp4", "--labels", "out/maps"],
    "perturb": ["perturb", "a.png", "b.png", "--at", "20,20", "-o", "out/x.png"],
    "perturb exactly": ["perturb", "clip.mp4", "--at", "20,20", "--exact", "--level", "0", "-o", "out/x.png"],
    "track": ["track", "clip.mp4", "--points", "9,9", "-o", "out/x.mp4", "--tracks", "out/t.json", "--size", "64"],
    "track by features": ["track", "clip.mp4", "--points", "9,9", "--tracks", "out/t.npz", "--method", "similarity"],
    "propagate": ["propagate", "clip.mp4", "--labels", "labels.png", "-o", "out", "--size", "64"],
    "pca": ["pca", "a.png", "-o", "out/x.png"],
    "pca of attention": ["pca", "clip.mp4", "-o", "out/x.mp4", "--attention"],
    "trajectories": ["trajectories", "clip.mp4", "-o", "out/x.png", "--size", "64"],
    "demo": ["demo", "clip.mp4", "-o", "out", "--frames", "2"],
}
IN_HALF = [name for name in COMMANDS if name.split()[0] not in ("perturb", "demo")]  # those two have no --dtype


def run(name, inputs, tmp_path, model, *more, as_json=True):
    """Run a command on files of `inputs`, its results going to tmp_path."""
    (tmp_path / "out").mkdir()
    words = [
        str(inputs / word) if (inputs / word).is_file() else str(tmp_path / word) if word.startswith("out") else word
        for word in COMMANDS[name]
    ]
    ran = CliRunner().invoke(
        app, [*words, "--model", str(model), "--device", "cpu", *more, *(["--json"] if as_json else [])]
    )
    return ran, [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def refuse_constant(text):
    raise AssertionError(f"JSON has no {text}")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_makes_nothing_of_what_a_broken_weight_gives(name, checkpoints, inputs, tmp_path):
    ran, written = run(name, inputs, tmp_path, checkpoints / "nan")
    said = " ".join((ran.stdout + ran.stderr).split())
    assert ran.exit_code == 1, said
    assert SAID in said
    assert ADVICE in said
    assert written == []
    if ran.stdout:
        json.loads(ran.stdout, parse_constant=refuse_constant)


@pytest.mark.parametrize("name", IN_HALF)
def test_a_command_makes_nothing_of_what_overflowed_in_float16(name, checkpoints, inputs, tmp_path):
    ran, written = run(name, inputs, tmp_path, checkpoints / "overflow", "--dtype", "float16")
    said = " ".join((ran.stdout + ran.stderr).split())
    assert ran.exit_code == 1, said
    assert SAID in said
    assert written == []


@pytest.mark.parametrize("name", ["flow numbers", "segment", "track", "pca"])
def test_what_overflows_in_float16_is_computed_in_float32(name, checkpoints, inputs, tmp_path):
    ran, written = run(name, inputs, tmp_path, checkpoints / "overflow")
    assert ran.exit_code == 0, ran.stderr
    assert written
    json.loads(ran.stdout, parse_constant=refuse_constant)


WORLDS = (
    *("--dataset", "world", "--worlds", "2", "--world-size", "48x64"),
    *("--set", "textures.tiles=4", "--set", "textures.tile_size=64"),
)


@pytest.mark.parametrize(
    ("task", "options"), [("flow", []), ("flow", ["--peers", "matching"]), ("segmentation", []), ("dynamics", [])]
)
def test_an_evaluation_counts_nothing_that_is_not_finite(task, options, checkpoints, tmp_path):
    words = ["evaluate", task, *WORLDS, *options, "-m", str(checkpoints / "nan"), "-o", str(tmp_path / "out"), "--json"]
    ran = CliRunner().invoke(training_app, words)
    said = " ".join((ran.stdout + ran.stderr).split())
    assert ran.exit_code == 1, said
    assert SAID in said
    assert not (tmp_path / "out" / "results.json").exists()


# -- the library -------------------------------------------------------------------------------------------------------


def frame(seed=0):
    return torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(seed))


def infer(net):
    return net.infer_motion(torch.randn(1, 3, 32, 48), torch.randn(1, 3, 32, 48))


@pytest.mark.parametrize(
    ("what", "compute"),
    [
        ("the flow", lambda net: flow_between(net, [frame(1), frame(2)])),
        ("the flow", lambda net: net.flow(torch.randn(2, 3, 50, 70), torch.randn(2, 3, 50, 70))),
        ("the segmentation", lambda net: labels_of(net, frame())),
        ("the segmentation", lambda net: net.segment(torch.randn(2, 3, 50, 70), slide=(32, 16))),
        ("a heatmap", lambda net: perturbation_heatmaps(net, infer(net), [0, 3], draws=2)),
        ("a heatmap", lambda net: jacobian_heatmaps(net, infer(net), [2])),
        ("the attention", lambda net: cls_attention(net, torch.randn(1, 3, 32, 48))),
        ("the motion", lambda net: list(motion_latents(net, torch.randn(3, 3, 32, 48)))),
    ],
)
def test_results_of_the_library_are_finite_or_an_error(net, what, compute):
    compute(net)
    with pytest.raises(ValueError, match=rf"{what} holds \d+ {SAID}.*{ADVICE}"):
        compute(broken(net))


def test_training_meets_no_check_of_its_own_outputs(net):
    broken(net)
    source, target = torch.randn(2, 1, 3, 64, 96)
    assert net.predict_flow(source, target).isnan().any()
    assert net.predict_classes(source).isnan().any()
    assert infer(net).predicted[0].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_heatmaps_where_nothing_is_felt_are_zero_in_half_precision_too(net, dtype):
    with torch.no_grad():
        for block in net.dynamics.levels["0"].predictor:
            block.attn.proj.weight.zero_()  # nothing passes between tokens
    maps = perturbation_heatmaps(net.to(dtype), infer(net.to(dtype)), [0], level=0, draws=2)
    assert maps[0, 0, 0] > 0.1
    assert maps.flatten()[1:].abs().max() == 0


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64, np.float16, np.float32])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_enough(kind, value):
    zeros = torch.zeros(3, 4, dtype=kind) if isinstance(kind, torch.dtype) else np.zeros((3, 4), kind)
    need_finite(zeros, "it")
    need_finite(zeros[:0], "it")
    zeros[1, 2] = value
    with pytest.raises(ValueError, match=f"it holds 1 {SAID} of 12; nothing was made of them"):
        need_finite(zeros, "it")


@pytest.mark.parametrize("largest", [3e38, 6e4])
def test_values_that_are_large_but_finite_are_results(largest):
    need_finite(torch.full((1000,), largest), "it")
    need_finite(torch.full((1000,), min(largest, 6e4), dtype=torch.float16), "it")
    need_finite(torch.full((1000,), 1e300, dtype=torch.float64), "it")
    need_finite(np.full(1000, largest, np.float32), "it")


def test_whole_numbers_are_finite():
    need_finite(np.arange(3), "it")
    need_finite(torch.arange(3), "it")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("name", ["positions", "confidence"])
def test_tracks_that_are_not_finite_are_never_kept(tmp_path, suffix, name):
    arrays = {"positions": np.zeros((2, 1, 2), np.float32), "confidence": np.ones((2, 1), np.float32)}
    arrays[name].flat[-1] = np.nan
    tracks = Tracks(**arrays, lost=np.zeros((2, 1), bool), frames=np.arange(2))
    with pytest.raises(ValueError, match=SAID):
        tracks.save(tmp_path / f"tracks{suffix}")
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, {"deep": [math.inf, 1.5]}, [(-math.inf,)], np.float64("nan")])
def test_json_has_null_for_numbers_that_are_not_finite(capsys, value):
    _console.print_json({"value": value})
    text = capsys.readouterr().out
    found = json.loads(text, parse_constant=refuse_constant)
    assert "null" in text
    assert set(found) == {"value"}
