"""A chain of runs makes one checkpoint, and goes on where it was."""

import json

import pytest
import torch
import yaml
from typer.testing import CliRunner

from midway_hub import MidwayNetwork
from midway_hub.training.__main__ import app
from midway_hub.training.configuration import ConfigError
from midway_hub.training.reproduce import list_chains, read_chain

TINY = (
    "engine.checkpoint_every_steps=1",
    "data.workers=0",
    "data.world={size: [32, 32], textures: {tiles: 4}}",
)
CHAIN = {
    "kind": "chain",
    "stages": [
        {
            "name": "first",
            "kind": "pretrain",
            "recipe": "smoke",
            "scales": {"tiny": ["steps=2", *TINY, "views={global_size: 32, local_size: 16, dense_size: 32}"]},
        },
        {
            "name": "flow",
            "kind": "flow",
            "recipe": "flow_synthetic_small",
            "start": "first",
            "scales": {"tiny": ["steps=2", "data.batch_size=2", *TINY]},
        },
        {
            "name": "classes",
            "kind": "segmentation",
            "recipe": "segmentation_synthetic_small",
            "start": "flow",
            "scales": {"tiny": ["steps=2", "data.batch_size=2", *TINY]},
        },
    ],
}


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CHAIN))
    return path


def command(*arguments):
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


def test_a_chain_ends_in_a_verified_network_with_both_heads(chain, tmp_path):
    code, _, err = command("reproduce", chain, "--scale", "tiny", "--out", tmp_path / "out")
    assert code == 0, err
    net = MidwayNetwork.from_pretrained(tmp_path / "out" / "export")
    assert net.has_flow_head
    assert net.has_segmentation_head
    assert f"reproduce {chain} --scale tiny" in (tmp_path / "out" / "export" / "README.md").read_text()
    again = command("reproduce", chain, "--scale", "tiny", "--out", tmp_path / "out")[1]
    assert again.count("kept") == 3
    made = (tmp_path / "out" / "classes" / "run.json").stat().st_mtime_ns
    assert json.loads((tmp_path / "out" / "classes" / "run.json").read_text())["state"] == "finished"
    assert (tmp_path / "out" / "classes" / "run.json").stat().st_mtime_ns == made
    flow = MidwayNetwork.from_pretrained(tmp_path / "out" / "flow" / "export").state_dict()
    kept = {name: value.half() for name, value in flow.items()}
    assert all(torch.equal(net.state_dict()[name].half(), value) for name, value in kept.items())


def test_an_unknown_scale_names_those_there_are(chain, tmp_path):
    code, _, err = command("reproduce", chain, "--scale", "huge", "--out", tmp_path / "out")
    assert code == 1
    assert "there are: tiny" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "later"}, "starts from 'later'"),
        ({"kind": "cook"}, "pretrain, flow, segmentation"),
        ({"name": "export"}, "called 'export'"),
        ({"recipes": "x"}, "did you mean 'stages.0.recipe'"),
    ],
)
def test_a_chain_that_is_not_well_made_says_why(tmp_path, change, message):
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump({**CHAIN, "stages": [{**CHAIN["stages"][0], **change}]}))
    with pytest.raises(ConfigError, match=message):
        read_chain(str(path))


def test_every_chain_of_the_package_has_recipes_that_load_at_every_scale():
    from midway_hub.training.kinds import kind

    for name in list_chains():
        chain = read_chain(name)
        for stage in chain.stages:
            for scale in (None, *chain.scales()):
                kind(stage.kind).load(stage.recipe, stage.scales.get(scale or "", ()))
