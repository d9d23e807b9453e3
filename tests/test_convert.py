"""The authors' checkpoints become safetensors: every key accounted for, whole folders or none."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from authors_checkpoint import PARTS, build_authors_checkpoint, named_tensor
from safetensors import safe_open
from safetensors.torch import load_file

from midway_hub.config import MidwayConfig
from midway_hub.convert import ConversionError, ConversionReport, UnsafePickleError, convert_checkpoint
from midway_hub.models.network import MidwayNetwork

TINY: dict[str, Any] = {"embed_dim": 24, "motion_dim": 12, "depth": 9}
FILES = ["config.json", "conversion.json", "model.safetensors", "preprocessor_config.json"]


def convert(folder: Path, **options: Any) -> ConversionReport:
    """Build a small checkpoint of the authors and convert it into `folder/out`."""
    build_authors_checkpoint(folder / "authors.pth", **{**TINY, **options})
    return convert_checkpoint(folder / "authors.pth", folder / "out")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    build_authors_checkpoint(tmp_path / "authors.pth", **TINY)
    return tmp_path / "authors.pth"


# What is converted.


@pytest.mark.parametrize(
    "prefixes", [(a, b, c) for a in ("module.", "") for b in ("module.", "") for c in ("module.", "")]
)
def test_keys_are_mapped_with_and_without_module(prefixes: tuple[str, str, str], tmp_path: Path) -> None:
    report = convert(tmp_path, prefixes=prefixes)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert set(report.mapped.values()) == set(tensors)
    for part, prefix in zip(PARTS, prefixes, strict=True):
        theirs = [key for key in report.mapped if key.startswith(f"{part}.")]
        assert theirs
        assert all(key.startswith(f"{part}.module.") is bool(prefix) for key in theirs)
    for key, name in report.mapped.items():
        expected = named_tensor(key.replace(".module.", "."), tuple(tensors[name].shape))
        assert torch.equal(tensors[name], expected)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("student.module.backbone.cls_token", "student.cls_token"),
        ("teacher.backbone.blocks.7.attn.qkv.bias", "teacher.blocks.7.attn.qkv.bias"),
        ("teacher.backbone.norm.weight", "teacher.norm.weight"),
        ("motion_loss.module.pos_embed", "dynamics.position_embedding"),
        ("motion_loss.module.motion_tokens", "dynamics.motion_tokens"),
        ("motion_loss.module.student_embed.weight", "dynamics.source_embed.weight"),
        ("motion_loss.module.teacher_embed.bias", "dynamics.target_embed.bias"),
        ("motion_loss.module.motion_proj.weight", "dynamics.motion_proj.weight"),
        ("motion_loss.module.student_feature_blocks_0.0.norm_y.weight", "dynamics.levels.2.backward.0.norm_y.weight"),
        (
            "motion_loss.module.teacher_feature_blocks_1.0.cross_attn.projq.weight",
            "dynamics.levels.5.backward_ema.0.cross_attn.projq.weight",
        ),
        ("motion_loss.module.motion_blocks_2.3.attn.qkv.weight", "dynamics.levels.8.midway.3.attn.qkv.weight"),
        ("motion_loss.module.forward_predictor_2.1.mlp.fc1.bias", "dynamics.levels.8.predictor.1.mlp.fc1.bias"),
        ("motion_loss.module.gating_mlps_1.2.norm_layer.bias", "dynamics.levels.5.gates.2.norm.bias"),
        ("motion_loss.module.gating_mlps_0.0.mlp.fc2.weight", "dynamics.levels.2.gates.0.mlp.fc2.weight"),
    ],
)
def test_key_map_is_the_published_one(theirs: str, ours: str, converted: ConversionReport) -> None:
    assert converted.mapped[theirs] == ours


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    return convert(tmp_path_factory.mktemp("converted"))


def test_everything_in_the_file_is_mapped_or_dropped_for_a_reason(tmp_path: Path) -> None:
    entries = build_authors_checkpoint(tmp_path / "authors.pth", **TINY)
    report = convert_checkpoint(tmp_path / "authors.pth", tmp_path / "out")
    keys = {f"{part}.{key}" for part in PARTS for key in entries[part]}
    assert set(report.mapped) | set(report.dropped) == keys | (set(entries) - set(PARTS)) | {"args"}
    assert not set(report.mapped) & set(report.dropped)
    assert report.dropped["student.module.dino_head.last_layer.weight_v"].startswith("DINO projection head")
    assert report.dropped["optimizer"] == "training state"
    assert all(report.dropped.values())


def test_converted_folder_is_what_the_network_wants(tmp_path: Path) -> None:
    report = convert(tmp_path)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    network = MidwayNetwork(MidwayConfig.from_pretrained(tmp_path / "out"))
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in tensors.items()} == wanted
    network.load_state_dict(tensors, strict=True)
    assert report.parameters["encoder"] == sum(p.numel() for p in network.student.parameters())
    assert report.parameters["stored"] == sum(value.numel() for value in network.state_dict().values())
    trained = sum(p.numel() for p in network.dynamics.parameters() if p.requires_grad)
    assert report.parameters["dynamics"] == trained


def test_teacher_alone_becomes_an_encoder(tmp_path: Path) -> None:
    report = convert(tmp_path, parts=("teacher",))
    assert not report.config.dynamics
    assert report.config.target_network == "shared"
    assert report.mapped["teacher.backbone.norm.bias"] == "student.norm.bias"
    assert set(report.heads) == {"num_heads"}
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    network = MidwayNetwork(MidwayConfig.from_pretrained(tmp_path / "out"))
    network.load_state_dict(tensors, strict=True)
    width = tensors["student.cls_token"].shape
    assert torch.equal(tensors["student.cls_token"], named_tensor("teacher.backbone.cls_token", tuple(width)))


def test_architecture_is_read_from_the_tensors(tmp_path: Path) -> None:
    convert(tmp_path, embed_dim=48, motion_dim=36, depth=10)
    config = MidwayConfig.from_pretrained(tmp_path / "out")
    assert (config.embed_dim, config.motion_dim, config.depth) == (48, 36, 10)
    assert (config.patch_size, config.image_size, config.num_channels, config.mlp_ratio) == (16, 224, 3, 4)
    assert (config.levels, config.num_motion_tokens) == ([8, 5, 2], 10)
    assert (config.midway_depth, config.predictor_depth) == (4, 4)
    assert config.architectures == ["MidwayNetwork"]
    assert config.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    report = convert(tmp_path, tensor=lambda name, shape: named_tensor(name, shape).to(dtype))
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {dtype}
    assert report.config.dtype == dtype


def test_tensors_of_several_dtypes_keep_theirs(tmp_path: Path) -> None:
    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return named_tensor(name, shape).to(torch.float32 if "norm" in name else torch.bfloat16)

    report = convert(tmp_path, tensor=tensor)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["student.norm.weight"].dtype == torch.float32
    assert torch.equal(tensors["student.cls_token"], named_tensor("student.backbone.cls_token", (1, 1, 24)).bfloat16())
    assert report.config.dtype is None


# Where head counts come from.


@pytest.mark.parametrize("args", ["omegaconf-like", "object", "namespace", "dict"])
def test_head_counts_are_read_from_recipes_of_any_class(args: str, tmp_path: Path) -> None:
    heads = {"num_motion_heads": 2, "num_feature_heads": 4, "num_pred_heads": 8}
    report = convert(tmp_path, args=args, recipe={"arch": "vit_base", "midway_model_configs": heads})
    config = report.config
    assert (config.num_heads, config.midway_heads, config.backward_heads, config.predictor_heads) == (12, 2, 4, 8)
    assert report.heads["num_heads"] == "args.arch = 'vit_base'"
    assert report.heads["backward_heads"] == "args.midway_model_configs.num_feature_heads"


def test_recipe_of_the_real_omegaconf_is_read_where_omegaconf_cannot_be_imported(tmp_path: Path) -> None:
    pytest.importorskip("omegaconf")
    heads = {"num_motion_heads": 2, "num_feature_heads": 4, "num_pred_heads": None}
    recipe = {"arch": "vit_base", "midway_model_configs": heads, "copy": "${arch}", "list": [1, {"a": 2.5}]}
    build_authors_checkpoint(tmp_path / "authors.pth", **TINY, args="omegaconf", recipe=recipe)
    script = (
        "import sys; sys.modules['omegaconf'] = None\n"
        "from midway_hub.convert import convert_checkpoint\n"
        f"report = convert_checkpoint({str(tmp_path / 'authors.pth')!r}, {str(tmp_path / 'out')!r})\n"
        "c = report.config; print(c.num_heads, c.midway_heads, c.backward_heads, c.predictor_heads)\n"
        "print([name for name in sys.modules if name.startswith('omegaconf.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["12 2 4 6", "[]"], done.stderr


def test_head_counts_default_to_the_released_ones_and_say_so(tmp_path: Path) -> None:
    report = convert(tmp_path, recipe={"arch": "vit_small", "midway_model_configs": {"num_motion_heads": "${heads}"}})
    config = report.config
    assert (config.midway_heads, config.backward_heads, config.predictor_heads) == (3, 6, 6)
    assert report.heads["midway_heads"].endswith("args.midway_model_configs.num_motion_heads is '${heads}'")
    assert report.heads["predictor_heads"].endswith("args.midway_model_configs.num_pred_heads is not in the file")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"arch": "vit_large"},
            "args.arch is 'vit_large' and the width is 24; wanted args.arch to be one of vit_small",
        ),
        ({"arch": ["vit_small"]}, "args.arch is a list"),
        (
            {"arch": "vit_small", "midway_model_configs": {"num_pred_heads": "six"}},
            "num_pred_heads is 'six'; wanted a whole number",
        ),
        (
            {"arch": "vit_small", "midway_model_configs": {"num_motion_heads": 0}},
            "num_motion_heads is '0'; wanted a whole number",
        ),
        (
            {"arch": "vit_small", "midway_model_configs": {"num_motion_heads": 5}},
            "motion_dim 12 is not a multiple of midway_heads 5",
        ),
    ],
)
def test_head_counts_that_cannot_be_are_refused(recipe: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path, recipe=recipe)
    assert message in str(caught.value)


def test_encoder_heads_without_a_recipe_follow_the_width(tmp_path: Path) -> None:
    report = convert(
        tmp_path, args=None, parts=("teacher",), embed_dim=384, depth=9, tensor=lambda _, shape: torch.ones(shape)
    )
    assert report.config.num_heads == 6
    assert report.heads["num_heads"] == "by the encoder's width 384; args.arch is not in the file"


def test_recipe_of_another_width_is_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(
        ConversionError, match=r"args.arch is 'vit_base' \(12 heads\), but the encoder has the width 384"
    ):
        convert(tmp_path, parts=("teacher",), arch="vit_base", embed_dim=384, tensor=lambda _, shape: torch.ones(shape))


# Files that hold something else.


def _extra_key(entries: dict[str, Any]) -> None:
    for block in (0, 1):
        entries["teacher"][f"backbone.blocks.{block}.ls1.gamma"] = torch.ones(24)
    entries["student"]["module.backbone.register_tokens"] = torch.ones(1, 4, 24)
    entries["motion_loss"]["module.student_head.weight"] = torch.ones(3)


def _missing_keys(entries: dict[str, Any]) -> None:
    del entries["student"]["module.backbone.norm.bias"]
    for level in range(3):
        del entries["motion_loss"][f"module.gating_mlps_{level}.1.norm_layer.bias"]


def _wrong_shape(entries: dict[str, Any]) -> None:
    entries["teacher"]["backbone.blocks.3.mlp.fc1.weight"] = torch.ones(90, 24)


def _twice(entries: dict[str, Any]) -> None:
    entries["teacher"]["module.backbone.norm.bias"] = torch.ones(24)


def _no_tensor(entries: dict[str, Any]) -> None:
    entries["teacher"]["backbone.norm.bias"] = 3
    entries["teacher"]["backbone.norm.weight"] = torch.ones(24, dtype=torch.int32)


def _far_block(entries: dict[str, Any]) -> None:
    entries["student"]["module.backbone.blocks.99999999.norm1.bias"] = torch.ones(24)


def _no_square(entries: dict[str, Any]) -> None:
    entries["student"]["module.backbone.pos_embed"] = torch.ones(1, 196, 24)


@pytest.mark.parametrize(
    ("edit", "lines"),
    [
        (
            _extra_key,
            [
                "unknown keys (4):",
                "  student.module.backbone.register_tokens",
                "  teacher.backbone.blocks.0.ls1.gamma (and 1 like it)",
                "  motion_loss.module.student_head.weight",
            ],
        ),
        (
            _missing_keys,
            [
                "missing keys (4):",
                "  student.backbone.norm.bias",
                "  motion_loss.gating_mlps_2.1.norm_layer.bias (and 2 like it)",
            ],
        ),
        (
            _wrong_shape,
            [
                "keys of contradicting shape (1):",
                "  teacher.backbone.blocks.3.mlp.fc1.weight (90, 24), wanted (96, 24)",
            ],
        ),
        (_twice, ["  teacher.module.backbone.norm.bias again, with and without `module.`"]),
        (
            _no_tensor,
            [
                "  teacher.backbone.norm.weight a tensor of int, wanted a tensor of float64, float32",
                "  teacher.backbone.norm.bias an int, wanted a tensor of float64, float32",
            ],
        ),
        (_far_block, ["block numbers go up to 99999999, more than the 675 tensors can stand for"]),
        (_no_square, ["the position embedding has 196 positions; wanted the square of a number, plus 1"]),
        (lambda entries: entries.update(ema_schedule=[1]), ["  ema_schedule entry"]),
        (
            lambda entries: entries["student"].pop("module.backbone.cls_token"),
            ["student.backbone.cls_token is missing"],
        ),
        (
            lambda entries: entries.pop("teacher"),
            ["wanted a dictionary with the entries student, teacher, motion_loss"],
        ),
        (
            lambda entries: entries.update(teacher=[1]),
            ["its entry teacher holds a list; wanted a dictionary of tensors"],
        ),
    ],
)
def test_what_is_not_accounted_for_is_listed(
    edit: Callable[[dict[str, Any]], None], lines: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path, edit=edit)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'authors.pth'} cannot be converted: ")
    assert all(line in message for line in lines), message
    assert names_in(tmp_path) == ["authors.pth"]


def test_missing_keys_of_a_teacher_alone_are_named_as_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"missing keys \(1\):\n  teacher\.backbone\.norm\.bias"):
        convert(tmp_path, parts=("teacher",), edit=lambda entries: entries["teacher"].pop("backbone.norm.bias"))


def test_long_listings_are_shortened(tmp_path: Path) -> None:
    def edit(entries: dict[str, Any]) -> None:
        for first in "abcdefgh":
            for second in "abcdefgh":
                entries["teacher"][f"{first}{second}"] = torch.ones(1)

    with pytest.raises(ConversionError) as caught:
        convert(tmp_path, edit=edit)
    assert "unknown keys (64):" in str(caught.value)
    assert "... and 24 more lines" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    def edit(entries: dict[str, Any]) -> None:
        entries["motion_loss"]["module.motion_tokens"][0, 3, 1] = value

    with pytest.raises(ConversionError, match=r"1 tensors hold NaN or infinity: dynamics\.motion_tokens"):
        convert(tmp_path, edit=edit)
    assert names_in(tmp_path) == ["authors.pth"]


def test_not_finite_numbers_in_what_is_dropped_do_not_matter(tmp_path: Path) -> None:
    convert(tmp_path, edit=lambda entries: entries["dino_loss"]["center"].fill_(float("nan")))
    assert names_in(tmp_path / "out") == FILES


def test_tensors_that_share_one_storage_are_refused(tmp_path: Path) -> None:
    storage = torch.ones(4 * 24 * 24 * 3)
    with pytest.raises(ConversionError, match="holds fewer numbers than its tensors claim"):
        convert(
            tmp_path,
            tensor=lambda _, shape: (
                storage[: int(np.prod(shape))].view(shape) if np.prod(shape) <= len(storage) else torch.ones(shape)
            ),
        )


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], {"state_dict": {}}, {}])
def test_checkpoint_of_another_kind_says_what_is_wanted(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ConversionError, match="wanted a dictionary with the entries student, teacher, motion_loss, or"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out")


class Trap:
    """An object whose pickle asks to run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("entry", ["args", "optimizer", "student"])
def test_checkpoint_that_runs_something_is_refused_wherever_it_hides(entry: str, tmp_path: Path) -> None:
    trap = Trap(f"touch {tmp_path / 'ran'}")
    with pytest.raises(UnsafePickleError, match=r"asks to run (posix|nt)\.system\. Nothing was run"):
        convert(tmp_path, args=None, edit=lambda entries: entries.update({entry: {"deep": [trap]}}))
    assert names_in(tmp_path) == ["authors.pth"]
    torch.load(tmp_path / "authors.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap was a real one


def test_missing_checkpoint_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "out")


@pytest.mark.parametrize("length", [10, 5_000, -2_000, -1])
def test_truncated_checkpoint_leaves_nothing(length: int, tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:length])
    with pytest.raises(ConversionError, match="Fetch the file again"):
        convert_checkpoint(tiny, tiny.parent / "out")
    assert names_in(tiny.parent) == ["authors.pth"]


# What is written.


def test_record_says_where_everything_comes_from(tiny: Path) -> None:
    report = convert_checkpoint(tiny, tiny.parent / "out")
    record = json.loads((tiny.parent / "out" / "conversion.json").read_text())
    content = tiny.read_bytes()
    assert record["source"] == {
        "file": "authors.pth",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert record["mapped"] == report.mapped
    assert record["dropped"] == report.dropped
    assert record["parameters"] == report.parameters
    assert record["heads"]["midway_heads"] == {"value": 3, "from": "args.midway_model_configs.num_motion_heads"}
    tensors = load_file(tiny.parent / "out" / "model.safetensors")
    digests = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}
    assert record["sha256"] == report.tensors == digests
    with safe_open(tiny.parent / "out" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert metadata["source"] == "authors.pth"
    assert metadata["source_sha256"] == record["source"]["sha256"]
    assert metadata["converter"] == record["converter"]


@pytest.mark.parametrize("args", ["omegaconf-like", "object", "namespace", "dict"])
def test_record_says_what_the_checkpoint_says_of_its_training(args: str, tmp_path: Path) -> None:
    recipe = {
        "arch": "vit_small",
        "lr": 5e-4,
        "batch_size_per_gpu": 20,
        "optim": {"warmup_epochs": 10, "schedule": {"min_lr": 1e-6}},
        "world_size": 2,
        "gpu": "${oc.env:GPU}",
        "seed": 3,
    }
    report = convert(tmp_path, args=args, recipe=recipe)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert (
        record["training"]
        == report.training
        == {
            "args": {
                "lr": 5e-4,
                "batch_size_per_gpu": 20,
                "world_size": 2,
                "gpu": "${oc.env:GPU}",
                "optim.warmup_epochs": 10,
                "optim.schedule.min_lr": 1e-6,
            },
            "optimizer": [{"lr": 5e-4, "weight_decay": 0.04}],  # numpy's scalars in the file
            "steps": 3,
            "epoch": 300,
        }
    )


def test_training_that_a_checkpoint_does_not_tell_is_left_out(tmp_path: Path) -> None:
    recipe = {"arch": "vit_small", "patch_size": 16}
    assert convert(tmp_path, parts=("teacher",), recipe=recipe).training == {}


def test_settings_that_are_no_plain_values_or_hold_one_another_are_passed_over(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"lr": float("inf"), "batch": [1, 2], "epochs": "x" * 500, "warmup": torch.ones(2)}
    for _ in range(9):
        inner = {f"part{i}": inner for i in range(9)}  # 9**9 ways to the innermost
    training = convert(tmp_path, args="dict", recipe={"arch": "vit_small", "gpus": 8, "more": inner}).training
    assert training["args"] == {"gpus": 8}


def test_a_pipe_in_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("the system has no named pipes")
    os.mkfifo(tmp_path / "authors.pth")
    with pytest.raises(OSError, match=r"authors\.pth is a named pipe"):
        convert_checkpoint(tmp_path / "authors.pth", tmp_path / "out")


def test_a_weight_that_torch_saved_as_the_negative_of_its_storage_keeps_its_sign(tmp_path: Path) -> None:
    def lazily_negated(entries: dict[str, Any]) -> None:
        weights = entries["teacher"]["backbone.norm.weight"]
        entries["teacher"]["backbone.norm.weight"] = torch._neg_view(weights.neg())

    convert(tmp_path, edit=lazily_negated)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(tensors["teacher.norm.weight"], named_tensor("teacher.backbone.norm.weight", (24,)))


def test_same_input_gives_the_same_bytes(tiny: Path) -> None:
    for name in ("a", "b"):
        convert_checkpoint(tiny, tiny.parent / name)
    for name in FILES:
        assert (tiny.parent / "a" / name).read_bytes() == (tiny.parent / "b" / name).read_bytes()


def test_folder_that_is_not_empty_is_left_alone(tiny: Path) -> None:
    (tiny.parent / "out").mkdir()
    (tiny.parent / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConversionError, match=r"is not empty \(1 entries, such as notes.txt\)"):
        convert_checkpoint(tiny, tiny.parent / "out")
    with pytest.raises(ConversionError, match="does not look like a converted checkpoint"):
        convert_checkpoint(tiny, tiny.parent / "out", overwrite=True)
    assert names_in(tiny.parent / "out") == ["notes.txt"]


def test_destination_that_is_a_file_is_left_alone(tiny: Path) -> None:
    (tiny.parent / "out").write_text("mine")
    with pytest.raises(ConversionError, match="is not a folder"):
        convert_checkpoint(tiny, tiny.parent / "out", overwrite=True)
    assert (tiny.parent / "out").read_text() == "mine"


def test_overwriting_keeps_other_files_and_drops_old_weights(tiny: Path) -> None:
    out = tiny.parent / "out"
    convert_checkpoint(tiny, out)
    fresh = (out / "model.safetensors").read_bytes()
    (out / "README.md").write_text("mine")
    (out / "model-00001-of-00002.safetensors").write_text("old")
    (out / "model.safetensors").write_text("old")
    convert_checkpoint(tiny, out, overwrite=True)
    assert names_in(out) == sorted([*FILES, "README.md"])
    assert (out / "README.md").read_text() == "mine"
    assert (out / "model.safetensors").read_bytes() == fresh
    assert names_in(tiny.parent) == ["authors.pth", "out"]


def test_failed_overwriting_keeps_the_old_checkpoint(tiny: Path) -> None:
    out = tiny.parent / "out"
    convert_checkpoint(tiny, out)
    before = {name: (out / name).read_bytes() for name in FILES}
    bad = tiny.parent / "bad.pth"
    build_authors_checkpoint(bad, **TINY, tensor=lambda _, shape: torch.full(shape, float("nan")))
    with pytest.raises(ConversionError, match="NaN"):
        convert_checkpoint(bad, out, overwrite=True)
    assert {name: (out / name).read_bytes() for name in FILES} == before
    assert names_in(tiny.parent) == ["authors.pth", "bad.pth", "out"]


def test_linked_destination_and_missing_parents_are_followed(tiny: Path) -> None:
    (tiny.parent / "real").mkdir()
    (tiny.parent / "link").symlink_to(tiny.parent / "real")
    convert_checkpoint(tiny, tiny.parent / "link")
    convert_checkpoint(tiny, tiny.parent / "a" / "b" / "c")
    assert names_in(tiny.parent / "real") == FILES
    assert names_in(tiny.parent / "a" / "b" / "c") == FILES


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_disk_that_is_full_is_a_clear_error_and_leaves_nothing(tiny: Path, full_disk: None) -> None:
    with pytest.raises(ConversionError, match=r"failed and left nothing there: .*File too large"):
        convert_checkpoint(tiny, tiny.parent / "out")
    assert names_in(tiny.parent) == ["authors.pth"]


def killed_conversion(source: Path, out: Path, function: str, call: int, **options: Any) -> None:
    """Convert in a child process that kills itself (-9) just before the given call of a function."""
    child = os.fork()
    if child == 0:
        module, _, attribute = function.rpartition(".")
        owner: Any = {"os": os, "torch": torch, "Path": Path}[module]
        original, count = getattr(owner, attribute), 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, attribute, counted)
        try:
            convert_checkpoint(source, out, **options)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize(
    ("function", "call"),
    [("torch.isfinite", 1), ("torch.isfinite", 300), ("os.fsync", 1), ("os.fsync", 4), ("Path.rename", 1)],
)
def test_killed_conversion_shows_nothing_and_the_next_run_succeeds(function: str, call: int, tiny: Path) -> None:
    out = tiny.parent / "out"
    killed_conversion(tiny, out, function, call)
    assert not out.exists()
    assert any(name.startswith(".out.") and name.endswith(".partial") for name in names_in(tiny.parent))
    convert_checkpoint(tiny, out)
    assert names_in(out) == FILES
    MidwayNetwork(MidwayConfig.from_pretrained(out)).load_state_dict(load_file(out / "model.safetensors"))


@pytest.mark.parametrize("call", [1, 2])
def test_killed_overwriting_loses_no_checkpoint(call: int, tiny: Path) -> None:
    out = tiny.parent / "out"
    convert_checkpoint(tiny, out)
    killed_conversion(tiny, out, "Path.rename", call, overwrite=True)
    kept = [folder for folder in tiny.parent.iterdir() if folder.is_dir() and (folder / "config.json").exists()]
    assert all(names_in(folder) == FILES for folder in kept)
    assert out in kept or any(folder.suffix == ".old" for folder in kept)
    convert_checkpoint(tiny, out, overwrite=True)
    assert names_in(out) == FILES


# The sizes that were released.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "motion_dim", "encoder", "dynamics"),
    [
        ("vit_small", 192, 21_665_664, 36_600_000),
        ("vit_base", 384, 85_798_656, None),
        ("vit_base", 192, 85_798_656, None),
    ],
)
def test_released_sizes_are_converted(
    arch: str, motion_dim: int, encoder: int, dynamics: int | None, tmp_path: Path
) -> None:
    def cheap(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.full(shape, 0.01)

    build_authors_checkpoint(tmp_path / "authors.pth", arch=arch, motion_dim=motion_dim, tensor=cheap)
    report = convert_checkpoint(tmp_path / "authors.pth", tmp_path / "out")
    (tmp_path / "authors.pth").unlink()
    assert report.config.motion_dim == motion_dim
    assert report.config.num_heads == (6 if arch == "vit_small" else 12)
    assert report.parameters["encoder"] == encoder
    assert dynamics is None or report.parameters["dynamics"] == dynamics
    with torch.device("meta"):
        network = MidwayNetwork(report.config)
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == wanted  # noqa: SIM118
    (tmp_path / "out" / "model.safetensors").unlink()


@pytest.mark.slow
def test_named_weights_survive_the_conversion_at_full_size(tmp_path: Path) -> None:
    build_authors_checkpoint(tmp_path / "authors.pth")
    report = convert_checkpoint(tmp_path / "authors.pth", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for theirs in list(report.mapped)[::25]:
        ours = tensors[report.mapped[theirs]]
        assert torch.equal(ours, named_tensor(theirs.replace(".module.", "."), tuple(ours.shape)))
