"""Speed and memory of a pretraining step, against a plain implementation of the same step in the same run.

    python benchmarks/pretrain_step.py                                              # a small model on CPU
    python benchmarks/pretrain_step.py --device cuda --model vits --batch 50 --precision bf16 --compile
    python benchmarks/pretrain_step.py --before CHECKOUT/.venv/bin/python           # beside an earlier build's step

The plain step gives the same losses (checked before anything is timed) and is written as one would first write it:
softmax attention by hand, every crop and every direction through the networks on its own, one cross-entropy after the
other, optimizer, clipping and teacher parameter by parameter. Runs are interleaved; the figure is the median.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from encode import medians
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import dino_pairs
from midway_hub.training.methods import Method, make_method
from midway_hub.training.timeline import Timeline

MODELS = {
    "pico": {"embed_dim": 128, "num_heads": 4, "motion_dim": 64, "midway_heads": 2, "backward_heads": 4}
    | {"predictor_heads": 4},
    "vits": {},
    "vitb": {"embed_dim": 768, "num_heads": 12},
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PEAK_TFLOPS = {  # dense, from the makers' data sheets
    "H200": {"fp32": 67, "bf16": 989, "fp16": 989},
    "H100": {"fp32": 67, "bf16": 989, "fp16": 989},
    "A100": {"fp32": 19.5, "bf16": 312, "fp16": 312},
    "RTX A6000": {"fp32": 38.7, "bf16": 155, "fp16": 155},
    "RTX 4090": {"fp32": 82.6, "bf16": 165, "fp16": 165},
}
PARTS = (
    *("encoders, student", "encoders, teacher", "dynamics", "heads and losses"),
    *("backward", "clipping", "optimizer", "teacher and centre"),
)
Batch = Mapping[str, Tensor]


class Step:
    """One optimizer step of the method, as training takes it."""

    attention, foreach = "sdpa", None

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)  # equal weights for every implementation
        pairs = arguments.batch
        settings = {"drop_path": 0.0, "warmup_epochs": 0, "freeze_last_layer_epochs": 0}
        self.method: Method = make_method(
            "midway",
            {**settings, "head": {"prototypes": arguments.prototypes}},
            {**MODELS[arguments.model], "attn_implementation": self.attention},
            Timeline(steps=1000, steps_per_epoch=100, batch_size=pairs, visits_per_step=pairs),
        )
        self.network = self.method.network.to(arguments.device).train()
        self.optimizer = self.method.make_optimizer()
        self.optimizer.defaults["foreach"] = self.foreach
        for group in self.optimizer.param_groups:
            group["foreach"] = self.foreach
        self.dtype = PRECISIONS[arguments.precision]
        self.forward: Callable[[Batch], StepOutput] = self.network
        self.batch = made_up_batch(arguments)
        self.number = 0

    def losses(self) -> dict[str, Tensor]:
        with torch.autocast(self.network.centre.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self.forward(self.batch).losses

    def __call__(self) -> None:
        self.method.schedule(self.optimizer, self.number)
        losses = self.losses()
        self.backward(losses)
        self.clip()
        self.optimizer.step()
        self.follow()
        self.optimizer.zero_grad()
        self.number += 1

    def backward(self, losses: dict[str, Tensor]) -> None:
        sum(losses.values(), torch.zeros((), device=self.network.centre.device)).backward()

    def clip(self) -> None:
        self.method.before_update(self.number)

    def follow(self) -> None:
        self.method.after_update(self.number)


class PlainStep(Step):
    """The same step, written as one would first write it."""

    attention, foreach = "eager", False

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.forward = self.plain_forward

    def plain_forward(self, batch: Batch) -> StepOutput:
        network, net = self.network, self.network.model
        crops = [*batch["globals"].unbind(1), *batch["locals"].unbind(1)]
        with torch.no_grad():
            said = [network.teacher_head(self.cls(net.teacher, crop)).float() for crop in crops[:4]]
            network.teacher_sum += sum(outputs.sum(0) for outputs in said)
            network.teacher_count += sum(len(outputs) for outputs in said)
            teacher = [((outputs - network.centre) / 0.04).softmax(-1) for outputs in said]
        student = [network.student_head(self.cls(net.student, crop)).float() / 0.1 for crop in crops]
        pairs = dino_pairs(4, len(crops))
        terms = [-(teacher[q] * student[v].log_softmax(-1)).sum(-1).mean() for q, v in pairs]
        losses = {"dino": sum(terms) / len(terms)}
        frames, blocks = batch["dense"].unbind(1), (*net.config.levels, net.config.depth - 1)
        for source, target in (frames, frames[::-1]):
            known = dict(zip(blocks, net.student.tokens(source, blocks), strict=True))
            with torch.no_grad():
                wanted = dict(zip(blocks, net.teacher.tokens(target, blocks), strict=True))
            for level, predicted in zip(
                net.config.levels, net.dynamics(known, wanted, (14, 14)).predicted, strict=True
            ):
                cosine = F.cosine_similarity(predicted.float(), wanted[level].float(), dim=-1)
                name = f"dynamics_{level}"
                losses[name] = losses.get(name, 0) + (2 - 2 * cosine).mean() / 2
        return StepOutput(losses)

    def cls(self, encoder: torch.nn.Module, images: Tensor) -> Tensor:
        return encoder.tokens(images, (self.network.model.config.depth - 1,))[0][:, 0]

    def clip(self) -> None:
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                torch.nn.utils.clip_grad_norm_([parameter], 3.0, foreach=False)

    @torch.no_grad()
    def follow(self) -> None:
        momentum = self.method.values(self.number)["momentum"]
        for average, source in self.network.follows().items():
            for a, s in zip(average.parameters(), source.parameters(), strict=True):
                a.mul_(momentum).add_(s, alpha=1 - momentum)
        self.network.move_centre()


def made_up_batch(arguments: argparse.Namespace) -> dict[str, Tensor]:
    shapes = {"globals": (4, 3, 224, 224), "locals": (2 * arguments.locals, 3, 96, 96), "dense": (2, 3, 224, 224)}
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(arguments.batch, *shape, generator=generator) for name, shape in shapes.items()}
    return {name: tensor.to(arguments.device) for name, tensor in made.items()}


def largest_difference(ours: Step, plain: Step) -> float:
    """Largest relative difference of a loss between the two implementations, from equal weights."""
    a, b = ours.losses(), plain.losses()
    for step in (ours, plain):
        step.method.after_rejection(0)
    return max(abs(a[name].item() / b[name].item() - 1) for name in b)


def seconds_of_parts(step: Step, rounds: int) -> dict[str, float]:
    """Mean seconds of the parts of a step, waiting for the device after each; the first round warms up."""
    device, spent = step.network.centre.device, dict.fromkeys(PARTS, 0.0)

    def timed(name: str, function: Callable) -> Callable:
        def run(*inputs: object, **keywords: object) -> object:
            _wait(device)
            started = time.perf_counter()
            result = function(*inputs, **keywords)
            _wait(device)
            spent[name] += time.perf_counter() - started
            return result

        return run

    model = step.network.model
    model.student.tokens = timed("encoders, student", model.student.tokens)
    model.teacher.tokens = timed("encoders, teacher", model.teacher.tokens)
    model.dynamics.forward = timed("dynamics", model.dynamics.forward)
    parts = {"losses": "heads and losses", "backward": "backward", "clip": "clipping", "follow": "teacher and centre"}
    for method, name in parts.items():
        setattr(step, method, timed(name, getattr(step, method)))
    step.optimizer.step = timed("optimizer", step.optimizer.step)
    step()
    spent.update(dict.fromkeys(spent, 0.0))
    for _ in range(rounds):
        step()
    for name in PARTS[:3]:  # they lie within the forward pass
        spent["heads and losses"] -= spent[name]
    return {name: seconds / rounds for name, seconds in spent.items()}


def operations(step: Step) -> tuple[int, int]:
    """Floating point operations (two for a multiply-add) of the forward pass, and of forward and backward together."""
    with FlopCounterMode(display=False) as counter:
        losses = step.losses()
        forward = counter.get_total_flops()
        step.backward(losses)
    step.optimizer.zero_grad()
    step.method.after_rejection(0)
    return forward, counter.get_total_flops()


def peak_memory(kind: str, arguments: argparse.Namespace) -> float:
    """Peak memory in MiB of two steps in a process of its own: GPU memory, or growth of the process on Linux CPUs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (kind, arguments))


def _peak(kind: str, arguments: argparse.Namespace) -> float:
    step = make_step(kind, arguments)
    if arguments.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        step(), step()
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform != "linux":
        return float("nan")
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    step(), step()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_step(kind: str, arguments: argparse.Namespace) -> Step:
    step = PlainStep(arguments) if kind == "plain" else Step(arguments)
    if kind == "ours, compiled":
        step.forward = torch.compile(step.network)
    return step


def other_build(python: str) -> Callable[[], object]:
    """Start another checkout's step in a process of its own; every call has it take one."""
    child = subprocess.Popen(
        [python, __file__, *sys.argv[1:], "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    sent, said = child.stdin, child.stdout

    def take() -> None:
        print(file=sent, flush=True)
        if said.readline() != "done\n":
            raise SystemExit(f"{python} cannot take the step: see above")

    return take


def serve(step: Step) -> None:
    """Take a step for every line that comes in."""
    for _ in sys.stdin:
        step()
        print("done", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--model", choices=MODELS, default="pico")
    parser.add_argument("--batch", type=int, default=2, help="frame pairs of a step")
    parser.add_argument("--locals", type=int, default=8, help="local crops of each frame")
    parser.add_argument("--prototypes", type=int, default=65536, help="outputs of the head")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true", help="time the compiled step too")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of every implementation")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--before", help="the Python of another checkout's environment: its step is timed, too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak-tflops", type=float, help="the device's peak, where it is not a known GPU")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.serve:
        return serve(make_step("ours", arguments))
    kinds = ["ours", "plain", *(["ours, compiled"] if arguments.compile else [])]
    steps = {kind: make_step(kind, arguments) for kind in kinds}
    difference = largest_difference(steps["ours"], steps["plain"])
    allowed = 1e-3 if arguments.precision == "fp32" else 5e-2
    if not difference < allowed:
        raise SystemExit(f"the two steps disagree: losses differ by {difference:.2g}, allowed is {allowed:g}")
    forward, needed = operations(steps["ours"])
    cases: dict[str, Callable[[], object]] = dict(steps)
    if arguments.before:
        cases["before"] = other_build(arguments.before)
    taken = medians(cases, arguments.rounds, torch.device(arguments.device))
    memory = {kind: peak_memory(kind, arguments) for kind in kinds}
    before = taken.pop("before", None)
    console = Console(width=120)
    console.print(_step_table(arguments, taken, memory, needed))
    console.print(_parts_table(seconds_of_parts(make_step("ours", arguments), arguments.rounds)))
    if before is not None:
        console.print(f"a step takes {taken['ours'] / before:.3f} of what it took before ({before:.4f} s)")
    console.print(f"losses of the two implementations differ by {difference:.1e} at most, relative")
    console.print(
        f"a pair takes {forward / 2 / arguments.batch / 1e9:.1f} G multiply-adds forward, and "
        f"{needed / arguments.batch / 1e9:.1f} GFLOPs forward and backward"
    )


def _step_table(arguments: argparse.Namespace, taken: dict[str, float], memory: dict[str, float], needed: int) -> Table:
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    known = next((peaks[arguments.precision] for gpu, peaks in PEAK_TFLOPS.items() if gpu in name), None)
    peak = arguments.peak_tflops or known
    title = (
        f"pretraining step, {arguments.model}, {arguments.batch} pairs, {4 + 2 * arguments.locals} views, "
        f"{arguments.prototypes} prototypes, {arguments.precision}, {name}"
    )
    table = Table("step", "seconds", "pairs/s", "speed over plain", "peak MiB", "of plain's", "TFLOP/s", title=title)
    table.add_column("model-FLOPs utilisation")
    for kind, seconds in taken.items():
        rate = needed / seconds / 1e12
        table.add_row(
            kind,
            f"{seconds:.4f}",
            f"{arguments.batch / seconds:.2f}",
            f"{taken['plain'] / seconds:.2f}",
            f"{memory[kind]:.0f}",
            f"{memory[kind] / memory['plain']:.2f}",
            f"{rate:.3g}",
            f"{rate / peak:.1%}" if peak else "no peak known",
        )
    return table


def _parts_table(parts: dict[str, float]) -> Table:
    total = sum(parts.values())
    table = Table("part of our step", "seconds", "share")
    for name, seconds in parts.items():
        table.add_row(name, f"{seconds:.4f}", f"{seconds / total:.1%}")
    return table


if __name__ == "__main__":
    main()
