"""BatchNorm over several processes: what one process computes on all their examples together."""

import copy
import os
import subprocess
import sys

import engine_job
import pytest
import torch
import torch.distributed as dist
from conftest import make_tiny_net
from engine_job import no_process_stays  # noqa: F401
from torch import nn

from midway_hub import MidwayNetwork
from midway_hub.training.configuration import ConfigError
from midway_hub.training.tasks.batch_norm import SharedBatchNorm2d, synchronise_batch_norm
from midway_hub.training.tasks.config import load_task_config
from midway_hub.training.tasks.plan import make_task_plan
from midway_hub.training.tasks.segmentation import SegmentationSettings, SegmentationTask, head_config
from midway_hub.training.tasks.start import StartSettings, starting_network
from midway_hub.training.timeline import Timeline

CPU = torch.device("cpu")
CLASSES, PALETTE = ("sky", "road", "car"), ((0, 0, 255), (90, 90, 90), (255, 0, 0))
SIZES = {2: (1, 1), 3: (1, 2), 4: (2, 2)}  # examples: how many of them each process has


def make_network(neck="pyramid", features="upernet"):
    """A segmentation network in fp64 whose head has BatchNorms everywhere, and no dropout."""
    head = {"name": "upernet", "layers": (0, 1, 1, 2), "channels": 16, "pool_scales": (1, 2), "neck": neck}
    if features == "linear":
        head = {"name": "linear", "layers": (0, 2), "batch_norm": True}
    settings = SegmentationSettings(head=head)
    model = {"image_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 2, "levels": [1], "motion_dim": 16,
             "midway_heads": 2, "backward_heads": 2, "predictor_heads": 2}  # fmt: skip
    start = StartSettings(model=model)
    net = starting_network(start, head_config(settings, CLASSES, PALETTE), which="segmentation_head", seed=3)
    task = SegmentationTask(net, settings, Timeline(10, 5, 2, 2))
    if task.network.auxiliary is not None:
        task.network.auxiliary.classifier.dropout = 0.0
    return task.network.double()


def pictures(count):
    generator = torch.Generator().manual_seed(5)
    return {
        "image": torch.randn(count, 3, 48, 64, generator=generator, dtype=torch.float64),
        "labels": torch.randint(0, 3, (count, 48, 64), generator=generator, dtype=torch.uint8),
    }


def take_part(rank, port, folder, count, options):
    """One process: its share of the pictures through a synchronised network, gradients averaged by DDP."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    network = make_network(**options)
    synchronise_batch_norm(network, CPU)
    wrapped = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
    share = {name: value.split(SIZES[count])[rank] for name, value in pictures(count).items()}
    losses = wrapped(share).losses
    # DDP averages over processes; each one's loss is a mean over its own pictures.
    sum(losses.values()).mul(2 * SIZES[count][rank] / count).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    torch.save((gradients, dict(network.named_buffers())), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("count", "options"),
    [(2, {}), (4, {"neck": "lateral"}), (3, {"neck": "pyramid"}), (2, {"features": "linear"})],
)
def test_two_processes_compute_what_one_does_on_all_pictures(tmp_path, count, options):
    context, port = engine_job._context(), engine_job._free_port()
    processes = [
        context.Process(target=take_part, args=(rank, port, str(tmp_path), count, options)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    network = make_network(**options).train()
    sum(network(pictures(count)).losses.values()).backward()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    wanted = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for rank in range(2):
        gradients, buffers = torch.load(tmp_path / f"{rank}.pt")
        assert gradients.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(gradients[name], value, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
        for name, value in network.named_buffers():
            torch.testing.assert_close(buffers[name], value, rtol=1e-9, atol=1e-12)


def test_head_neck_and_auxiliary_head_are_converted_and_keep_their_tensors():
    network = make_network()
    plain = [name for name, module in network.named_modules() if type(module) is nn.BatchNorm2d]
    before, parameters = copy.deepcopy(network.state_dict()), dict(network.named_parameters())
    synchronise_batch_norm(network, CPU)
    shared = [name for name, module in network.named_modules() if type(module) is SharedBatchNorm2d]
    assert shared == plain
    assert any("neck" in name for name in shared)
    assert any("auxiliary" in name for name in shared)
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
    assert network.state_dict().keys() == before.keys()
    assert all(parameters[name] is parameter for name, parameter in network.named_parameters())


def test_on_a_gpu_torch_s_own_module_takes_its_place():
    network = make_network()
    before, parameters = network.state_dict(), dict(network.named_parameters())
    synchronise_batch_norm(network, torch.device("cuda"))
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
    assert any(type(module) is nn.SyncBatchNorm for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameters[name] is parameter for name, parameter in network.named_parameters())


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_computes_what_batch_norm_does(training):
    plain, features = nn.BatchNorm2d(4).train(training), torch.randn(3, 4, 5, 6)
    shared = nn.Sequential(copy.deepcopy(plain))
    synchronise_batch_norm(shared, CPU)
    torch.testing.assert_close(shared(features), plain(features))
    torch.testing.assert_close(shared[0].running_var, plain.running_var)


@pytest.mark.parametrize("overrides", [["data.batch_size=1"], ["data.batch_size=4", "engine.accumulate=4"]])
def test_a_single_picture_at_a_time_is_refused_before_the_run_with_settings_that_exist(overrides):
    upernet = "task.head={name: upernet, layers: [0, 1, 1, 1], channels: 8}"
    config = load_task_config("segmentation", "segmentation_synthetic_small", [upernet, *overrides])
    with pytest.raises(ConfigError, match=r"raise the one, lower the other, or take several processes"):
        make_task_plan(config, items=100, world_size=1)


def test_a_linear_head_and_upernet_without_that_pooling_take_single_pictures():
    for head in ("{name: linear}", "{name: upernet, layers: [0, 1, 1, 1], channels: 8, pool_scales: [2, 3]}"):
        config = load_task_config(
            "segmentation", "segmentation_synthetic_small", [f"task.head={head}", "data.batch_size=1"]
        )
        assert make_task_plan(config, items=100, world_size=1).visits_per_micro_batch == 1


@pytest.mark.slow
def test_upernet_trains_on_two_processes_with_a_picture_each_and_exports_plain_batch_norm(tmp_path):
    make_tiny_net().save_pretrained(tmp_path / "net")
    options = [
        *(f"start.weights={tmp_path / 'net'}", "steps=2", "data.batch_size=2", "data.workers=0", "engine.devices=2"),
        *("engine.accelerator=cpu", "data.world.size=[32,48]", "data.world.textures.tiles=4", "evaluation.limit=2"),
        *("evaluation.every_steps=2", "task.head={name: upernet, layers: [0, 1, 1, 2], channels: 8}"),
    ]
    command = [sys.executable, "-m", "midway_hub.training", "segmentation", "segmentation_synthetic_small", *options]
    ran = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    net = MidwayNetwork.from_pretrained(tmp_path / "run" / "export")
    assert all(
        type(module) is nn.BatchNorm2d
        for module in net.segmentation_head.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    )
