"""Networks that are traced or exported with free sizes compute the same as the network at every size."""

import io
import warnings

import pytest
import torch
from conftest import make_tiny_net
from torch import nn
from torch.export import Dim, export

from midway_hub.outputs import ClipOutput

PATCH = 16
SIZES = [(48, 80), (64, 64), (80, 48), (48, 160)]  # (64, 64) is the stored grid, which is not resized
SMALL = {"depth": 2, "levels": (0,), "midway_depth": 1, "predictor_depth": 2}
HEADS = {
    "flow_head": {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4},
    "segmentation_head": {"classes": ("road", "sky"), "palette": ((1, 2, 3), (4, 5, 6)), "layers": [1]},
}


class Doing(nn.Module):
    """A module whose forward pass is one of the network's methods, with tensors as results."""

    def __init__(self, net, what):
        super().__init__()
        self.net, self.what = net, what

    def forward(self, *frames):
        return self.what(self.net, *frames)


def encode(net, images):
    features = net.encode(images, layers=[0, -1])
    return features.last, features.cls, *features.layers


def infer_motion(net, source, target):
    motion = net.infer_motion(source, target)
    return *motion.latents, *motion.source, *motion.predicted, motion.target_context


def predict_flow(net, source, target):
    return net.predict_flow(source, target)


def predict_classes(net, images):
    return net.predict_classes(images)


@pytest.fixture(scope="module")
def net():
    return make_tiny_net(**SMALL, **HEADS)


def frames(count, size, batch=2):
    return tuple(torch.randn(batch, 3, *size) for _ in range(count))


def free_sizes():
    height, width = (PATCH * Dim(name, min=3, max=64) for name in ("rows", "columns"))
    return {2: height, 3: width}


def exported(module, example, strict=False):
    with torch.no_grad():
        return export(module, example, dynamic_shapes=(tuple(free_sizes() for _ in example),), strict=strict)


def assert_same_at_every_size(program, module, inputs):
    for size in SIZES:
        given = frames(inputs, size)
        with torch.no_grad():
            torch.testing.assert_close(program(*given), module(*given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("what", "inputs"),
    [(encode, 1), (infer_motion, 2), pytest.param(predict_flow, 2, marks=pytest.mark.slow), (predict_classes, 1)],
)
def test_an_exported_network_takes_any_size(net, what, inputs):
    module = Doing(net, what)
    assert_same_at_every_size(exported(module, frames(inputs, (64, 48))).module(), module, inputs)


@pytest.mark.slow
def test_an_export_at_the_stored_size_is_right_at_others(net):
    module = Doing(net, infer_motion)
    assert_same_at_every_size(exported(module, frames(2, (64, 64))).module(), module, 2)


@pytest.mark.slow
def test_export_through_python_bytecode_takes_any_size(net):
    module = Doing(net, encode)
    assert_same_at_every_size(exported(module, frames(1, (64, 48)), strict=True).module(), module, 1)


@pytest.mark.parametrize(("what", "inputs"), [(encode, 1), (infer_motion, 2), (predict_flow, 2), (predict_classes, 1)])
def test_a_traced_network_takes_any_size(net, what, inputs):
    module = Doing(net, what)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is old, and of checks that are not recorded
        traced = torch.jit.trace(module, frames(inputs, (64, 48)), check_trace=False)
    assert_same_at_every_size(traced, module, inputs)


def test_the_network_itself_exports_and_gives_its_own_kind_of_result(net):
    sizes = {axis + 1: side for axis, side in free_sizes().items()}
    with torch.no_grad():
        program = export(net, (torch.randn(1, 2, 3, 64, 48),), dynamic_shapes=(sizes,), strict=False)
        stored = io.BytesIO()
        torch.export.save(program, stored)
        stored.seek(0)
        clip = torch.randn(1, 2, 3, 48, 80)
        found, expected = torch.export.load(stored).module()(clip), net(clip)
    assert isinstance(found, ClipOutput)
    assert found.motion.levels == expected.motion.levels
    assert found.motion.grid == found.features.grid == (3, 5)
    torch.testing.assert_close(found.features.last, expected.features.last, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.motion.predicted, expected.motion.predicted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("what", "inputs"), [(encode, 1), (infer_motion, 2)])
def test_a_network_goes_to_onnx_with_free_sizes(net, tmp_path, what, inputs):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    module, example = Doing(net, what), frames(inputs, (64, 48))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, example, dynamo=True, dynamic_shapes=(tuple(free_sizes() for _ in example),), verbose=False
        )
    program.save(tmp_path / "network.onnx")
    assert (tmp_path / "network.onnx").stat().st_size > 1000
    try:
        import onnxruntime
    except ImportError:
        return  # it is no dependency: where it is installed, the numbers are compared too
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    names = [entry.name for entry in session.get_inputs()]
    for size in SIZES:
        given = frames(inputs, size)
        found = session.run(None, {name: frame.numpy() for name, frame in zip(names, given, strict=True)})
        with torch.no_grad():
            expected = module(*given)
        torch.testing.assert_close(tuple(map(torch.from_numpy, found)), tuple(expected), rtol=1e-3, atol=1e-3)
