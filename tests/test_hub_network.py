"""A whole network to a Hub on loopback and back, through every door, by the real client in a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hub_client import QUIET
from hub_server import Hub

pytest_plugins = ["hub_fixtures"]

TESTS = Path(__file__).parent


def run(hub: Hub, home: Path, code: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, **QUIET, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, env={**variables, **environment})


@pytest.fixture
def published(hub: Hub, tmp_path: Path) -> str:
    """Push a tiny network; returns the sum of the features that it gives for ones."""
    ran = run(
        hub,
        tmp_path / "pusher",
        """
        import torch
        from conftest import make_tiny_net
        net = make_tiny_net()
        net.push_to_hub("me/net", token="hf_me")
        print(float(net.encode(torch.ones(1, 3, 32, 32)).last.detach().double().sum()))
        """,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[-1]


def test_what_is_pushed_comes_with_card_and_processor(hub, published):
    head = hub.repos["me/net"]
    files = head.commits[head.refs["main"]]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= files.keys()
    assert json.loads(files["preprocessor_config.json"])["image_processor_type"] == "MidwayImageProcessor"


def test_every_door_gives_the_features_of_what_was_pushed(hub, published, tmp_path):
    ran = run(
        hub,
        tmp_path / "loader",
        """
        import torch, midway_hub
        from transformers import AutoBackbone, AutoImageProcessor, AutoModel
        ones = torch.ones(1, 3, 32, 32)
        with torch.no_grad():
            print(float(midway_hub.MidwayNetwork.from_pretrained("me/net").encode(ones).last.double().sum()))
            print(float(AutoModel.from_pretrained("me/net").encode(ones).last.double().sum()))
            print(float(AutoBackbone.from_pretrained("me/net").eval()(ones).feature_maps[0].double().sum()))
        print(type(AutoImageProcessor.from_pretrained("me/net")).__name__)
        """,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [published] * 3 + ["MidwayImageProcessor"]


def test_after_one_load_it_loads_offline_with_the_commit_in_its_report(hub, published, tmp_path):
    code = """
        from midway_hub import MidwayNetwork
        report = MidwayNetwork.from_pretrained("me/net").load_report
        print(report.source, report.commit)
    """
    online = run(hub, tmp_path / "home", code)
    offline = run(hub, tmp_path / "home", code, HF_HUB_OFFLINE="1")
    assert online.returncode == offline.returncode == 0, offline.stderr
    assert online.stdout == offline.stdout
    assert hub.repos["me/net"].refs["main"] in offline.stdout


def test_how_frames_are_made_goes_to_the_hub_and_back_with_the_network(hub, tmp_path):
    ran = run(
        hub,
        tmp_path / "pusher",
        """
        from conftest import make_tiny_net
        from midway_hub import MidwayImageProcessor
        net = make_tiny_net()
        net.image_processor = MidwayImageProcessor(image_mean=(0.5, 0.4, 0.3), image_std=(0.5, 0.25, 0.1))
        net.push_to_hub("me/own", token="hf_me")
        """,
    )
    assert ran.returncode == 0, ran.stderr
    code = """
        import midway_hub
        from transformers import AutoImageProcessor
        print(midway_hub.MidwayImageProcessor.from_pretrained("me/own").image_mean)
        print(midway_hub.MidwayNetwork.from_pretrained("me/own").image_processor.image_mean)
        print(tuple(AutoImageProcessor.from_pretrained("me/own").image_mean))
        print(midway_hub.MidwayImageProcessor.from_pretrained("me/own@main", size=64, fit="shortest").image_mean)
        """
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        ran = run(hub, tmp_path / "loader", code, **environment)
        assert ran.stdout.splitlines() == ["(0.5, 0.4, 0.3)"] * 4, ran.stderr


def test_a_repository_without_a_processor_gets_imagenets_normalisation_and_its_patches(hub, published, tmp_path):
    head = hub.repos["me/net"]
    del head.commits[head.refs["main"]]["preprocessor_config.json"]
    ran = run(
        hub,
        tmp_path / "loader",
        """
        import midway_hub
        for made in (
            midway_hub.MidwayImageProcessor.from_pretrained("me/net"),
            midway_hub.MidwayNetwork.from_pretrained("me/net").image_processor,
        ):
            print(made.image_mean, made.multiple)
        """,
    )
    assert ran.stdout.splitlines() == ["(0.485, 0.456, 0.406) 16"] * 2, ran.stderr
