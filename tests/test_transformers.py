import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)

from midway_hub import MidwayBackbone, MidwayConfig, MidwayImageProcessor, MidwayNetwork


@pytest.fixture
def saved(tmp_path):
    net = make_tiny_net()
    net.save_pretrained(tmp_path)
    MidwayImageProcessor().save_pretrained(tmp_path)
    return net, tmp_path


def test_auto_classes_know_the_model_type(saved):
    _, folder = saved
    assert isinstance(AutoConfig.from_pretrained(folder), MidwayConfig)
    assert isinstance(AutoModel.from_pretrained(folder), MidwayNetwork)
    assert isinstance(AutoBackbone.from_config(MidwayConfig.from_pretrained(folder)), MidwayBackbone)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), MidwayImageProcessor)


@pytest.mark.parametrize(
    "first", ["import midway_hub, transformers", "import transformers; transformers.AutoModel; import midway_hub"]
)
def test_the_order_of_imports_does_not_matter(saved, first):
    _, folder = saved
    code = f"""
        {first}
        from transformers import AutoModel, AutoImageProcessor
        print(type(AutoModel.from_pretrained({str(folder)!r})).__name__)
        print(type(AutoImageProcessor.from_pretrained({str(folder)!r})).__name__)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["MidwayNetwork", "MidwayImageProcessor"]


def test_all_doors_give_equal_features(saved, tmp_path):
    net, folder = saved
    images = torch.randn(2, 3, 48, 64)
    expected = net.encode(images, layers=[2, 11])
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder).encode(images, layers=[2, 11])
        backbone = MidwayBackbone.from_pretrained(folder, out_indices=[3, 12])(images)
    for layer, feature_map, by_model in zip(expected.layers, backbone.feature_maps, model.layers, strict=True):
        torch.testing.assert_close(by_model, layer)
        torch.testing.assert_close(feature_map, layer)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_feature_extraction_pipeline_runs(saved, batch_size):
    net, folder = saved
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)
    extract = pipeline("image-feature-extraction", model=str(folder), device="cpu")
    images = [Image.fromarray(each) for each in pixels]
    found = torch.cat(extract(images, batch_size=batch_size, return_tensors=True))
    with torch.no_grad():
        wanted = net.encode(MidwayImageProcessor()(images)["pixel_values"], output_format="tokens").last
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert len(extract(images[0], pool=True)[0]) == 48


def test_the_backbone_of_a_shared_network_is_its_one_encoder(tmp_path):
    net = make_tiny_net(target_network="shared")
    net.save_pretrained(tmp_path)
    images = torch.randn(1, 3, 32, 32)
    backbone = MidwayBackbone.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(backbone(images).feature_maps[0], net.encode(images).last)


def test_the_backbone_gives_hidden_states_of_every_block(saved):
    net, folder = saved
    images = torch.randn(1, 3, 32, 32)
    output = MidwayBackbone.from_pretrained(folder, out_features=["stage1"]).eval()(images, output_hidden_states=True)
    assert len(output.hidden_states) == 12
    assert len(output.feature_maps) == 1
    torch.testing.assert_close(
        output.hidden_states[5], net.encode(images, layers=[5], output_format="tokens").layers[0]
    )


def test_the_backbone_refuses_the_stem_and_frames_off_the_grid(saved):
    _, folder = saved
    with pytest.raises(ValueError, match="the stem has no feature map of its own"):
        MidwayBackbone.from_pretrained(folder, out_features=["stem", "stage12"])
    with pytest.raises(ValueError, match="nearest legal sizes are 32×32 or 48×48"):
        MidwayBackbone.from_pretrained(folder)(torch.zeros(1, 3, 40, 40))


def test_upernet_runs_and_trains_on_our_backbone(saved):
    _, folder = saved
    config = UperNetConfig(
        backbone_config=MidwayConfig.from_pretrained(folder, out_indices=[3, 6, 9, 12]),
        hidden_size=16,
        pool_scales=[1, 2],
        auxiliary_in_channels=48,
        num_labels=5,
    )
    model = UperNetForSemanticSegmentation(config)
    output = model(torch.randn(2, 3, 64, 96), labels=torch.randint(5, (2, 64, 96)))
    assert output.logits.shape == (2, 5, 64, 96)
    output.loss.backward()
    assert model.backbone.teacher.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float64"])
def test_upernet_on_a_backbone_whose_weights_are_stored_in_another_precision(saved, stored):
    _, folder = saved
    backbone = AutoConfig.from_pretrained(folder, out_indices=[3, 6, 9, 12])
    backbone.dtype = stored
    options = {"hidden_size": 16, "pool_scales": [1, 2], "auxiliary_in_channels": 48, "num_labels": 5}
    model = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **options))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    output = model(torch.randn(2, 3, 32, 48), labels=torch.randint(5, (2, 32, 48)))
    output.loss.backward()
    assert output.logits.dtype == torch.float32


def test_upernet_on_the_bundled_checkpoints_configuration_keeps_one_precision_when_it_is_loaded_again(tmp_path):
    backbone = AutoConfig.from_pretrained("midway_pico", out_indices=[1, 2, 3])
    options = {"hidden_size": 16, "pool_scales": [1, 2], "auxiliary_in_channels": 64, "num_labels": 3}
    UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **options)).save_pretrained(tmp_path)
    for dtype in (None, torch.bfloat16, torch.float16):
        model = UperNetForSemanticSegmentation.from_pretrained(tmp_path, dtype=dtype).eval()
        assert {parameter.dtype for parameter in model.parameters()} == {dtype or torch.float32}
        assert model(torch.randn(1, 3, 32, 32).to(model.dtype)).logits.dtype == (dtype or torch.float32)


def test_a_backbone_asked_for_in_a_precision_is_made_in_it(saved):
    config = MidwayConfig.from_pretrained(saved[1])
    assert AutoBackbone.from_config(config, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_auto_classes_open_registry_names_without_asking_the_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.chdir(tmp_path)
    name = "midway_pico"
    model = AutoModel.from_pretrained(name, trust_remote_code=False)
    assert model.load_report.source == f"registry name {name}"
    assert type(AutoBackbone.from_pretrained(pretrained_model_name_or_path=name, out_indices=[1])) is MidwayBackbone
    assert AutoConfig.from_pretrained(name, out_indices=[1, 2]).out_indices == [1, 2]
    assert AutoConfig.from_pretrained("midway_vits_bdd100k").embed_dim == 384
    assert MidwayConfig.from_pretrained("midway_vitb_bdd100k").embed_dim == 768
    assert AutoImageProcessor.from_pretrained(name, use_fast=True).multiple == 8
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = MidwayNetwork.from_pretrained(name).encode(images).last
        torch.testing.assert_close(model.encode(images).last, expected)


def test_a_folder_called_as_a_registry_name_is_the_folder(saved, tmp_path, monkeypatch):
    net, folder = saved
    monkeypatch.chdir(tmp_path.parent)
    folder.rename(tmp_path.parent / "midway_pico")
    assert AutoModel.from_pretrained("midway_pico").config.embed_dim == net.config.embed_dim
    assert AutoConfig.from_pretrained("midway_pico").embed_dim == net.config.embed_dim
    assert MidwayConfig.from_pretrained("midway_pico").embed_dim == net.config.embed_dim


def test_registering_twice_wraps_an_auto_class_once():
    from midway_hub import _transformers

    before = AutoModel.from_pretrained.__func__
    _transformers.register_when_loaded()
    assert AutoModel.from_pretrained.__func__ is before
