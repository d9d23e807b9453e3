"""Builds checkpoints in the layout of the authors' releases, with weights that are functions of their names.

The recipe for the numbers is that of the reference outputs: a generator seeded with the name's CRC-32 draws a tensor,
which is then scaled by the kind of parameter. Nothing here uses the package's own key map.
"""

from __future__ import annotations

import argparse
import sys
import types
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

Shape = tuple[int, ...]
WIDTHS = {"vit_small": 384, "vit_base": 768}
PARTS = ("student", "teacher", "motion_loss")


def named_input(name: str, shape: Shape) -> torch.Tensor:
    """Draw the standard normal tensor of a name: `frame_a`, `frame_b`, `img(96, 96)`, ..."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(size=shape).astype("float32"))


def named_tensor(name: str, shape: Shape) -> torch.Tensor:
    """Draw the weight of a name, such as `student.backbone.blocks.0.attn.qkv.weight`: entry + key without `module.`."""
    x = named_input(name, shape)
    last = name.rpartition(".")[2]
    if last in ("cls_token", "pos_embed", "motion_tokens"):
        return 0.2 * x
    if len(shape) >= 2:
        return x / float(np.sqrt(np.prod(shape[1:])))
    return 0.05 * x if last == "bias" else 1 + 0.1 * x


def build_authors_checkpoint(
    path: Path,
    *,
    arch: str = "vit_small",
    motion_dim: int = 192,
    embed_dim: int | None = None,
    depth: int = 12,
    prefixes: tuple[str, str, str] = ("module.", "", "module."),
    parts: tuple[str, ...] = PARTS,
    args: str | None = "omegaconf-like",
    recipe: dict[str, Any] | None = None,
    tensor: Callable[[str, Shape], torch.Tensor] = named_tensor,
    edit: Callable[[dict[str, Any]], None] = lambda entries: None,
) -> dict[str, Any]:
    """Write a checkpoint as the authors' training loop does.

    Args:
        path: The `.pth` file.
        arch: `vit_small` or `vit_base`; stands in `args` and gives the width.
        motion_dim: Width of the motion latents: 192, or 384 for some ViT-B.
        embed_dim: Another width of the encoder, for small files.
        depth: Encoder blocks; at least 9, as the levels are blocks 2, 5 and 8.
        prefixes: What the keys of student, teacher and motion_loss start with: `module.` or nothing.
        parts: Which of these three are in the file.
        args: How the recipe is stored: `omegaconf-like` (classes called as OmegaConf's that exist only here),
            `omegaconf` (the real ones), `object` (attributes of a class that exists only here), `namespace`, `dict`,
            or None.
        recipe: The recipe; by default the part of the released one that says head counts.
        tensor: Makes a weight from its name and shape.
        edit: Changes the entries before they are written.

    Returns:
        The entries as written; tensors under the keys that are in the file.
    """
    width = embed_dim or WIDTHS[arch]
    shapes = {
        "student": {**encoder_shapes(width, depth), **head_shapes(width)},
        "teacher": {**encoder_shapes(width, depth), **head_shapes(width)},
        "motion_loss": motion_shapes(width, motion_dim),
    }
    entries: dict[str, Any] = {}
    for part, prefix in zip(PARTS, prefixes, strict=True):
        if part in parts:
            state = OrderedDict((prefix + key, tensor(f"{part}.{key}", shape)) for key, shape in shapes[part].items())
            state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
            entries[part] = state
    if parts == PARTS:
        entries |= training_state()
    settings = recipe or {
        "arch": arch,
        "patch_size": 16,
        "lr": 5e-4,
        "output_dir": "${root}/runs",
        "midway_model_configs": {"num_motion_heads": 3, "num_feature_heads": 6, "num_pred_heads": 6, "gates": [1, 2]},
    }
    edit(entries)
    save(path, entries, args, settings)
    return entries


def encoder_shapes(width: int, depth: int) -> dict[str, Shape]:
    """Keys and shapes of `backbone.*`."""
    shapes: dict[str, Shape] = {
        "backbone.cls_token": (1, 1, width),
        "backbone.pos_embed": (1, 197, width),
        "backbone.patch_embed.proj.weight": (width, 3, 16, 16),
        "backbone.patch_embed.proj.bias": (width,),
    }
    for index in range(depth):
        block = f"backbone.blocks.{index}"
        shapes |= dict(self_attention_block(block, width))
        shapes[f"{block}.attn.qkv.bias"] = (3 * width,)
    return {**shapes, "backbone.norm.weight": (width,), "backbone.norm.bias": (width,)}


def head_shapes(width: int, prototypes: int = 32) -> dict[str, Shape]:
    """Keys of the DINO head; its hidden widths and its 65 536 prototypes are made small."""
    shapes: dict[str, Shape] = {}
    for layer, (inputs, outputs) in {0: (width, 32), 2: (32, 32), 4: (32, 16)}.items():
        shapes |= {f"dino_head.mlp.{layer}.weight": (outputs, inputs), f"dino_head.mlp.{layer}.bias": (outputs,)}
    return {
        **shapes,
        "dino_head.last_layer.weight_g": (prototypes, 1),
        "dino_head.last_layer.weight_v": (prototypes, 16),
    }


def motion_shapes(width: int, motion: int) -> dict[str, Shape]:
    """Keys and shapes of `motion_loss`."""
    shapes: dict[str, Shape] = {"pos_embed": (1, 394, motion), "motion_tokens": (1, 10, motion)}
    for name in ("student_embed", "teacher_embed"):
        shapes |= {f"{name}.weight": (motion, width), f"{name}.bias": (motion,)}
    shapes |= {"motion_proj.weight": (width, motion), "motion_proj.bias": (width,)}
    for level in range(3):
        for name in ("student_feature_blocks", "teacher_feature_blocks"):
            shapes |= dict(cross_attention_block(f"{name}_{level}.0", width))
        for index in range(4):
            shapes |= dict(self_attention_block(f"motion_blocks_{level}.{index}", motion))
            shapes |= dict(self_attention_block(f"forward_predictor_{level}.{index}", width))
        for index in range(3):
            gate = f"gating_mlps_{level}.{index}"
            shapes |= dict(norm(f"{gate}.norm_layer", width))
            for layer in ("fc1", "fc2"):
                shapes |= {f"{gate}.mlp.{layer}.weight": (width, width), f"{gate}.mlp.{layer}.bias": (width,)}
    return shapes


def self_attention_block(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    """A block without qkv bias."""
    yield from norm(f"{name}.norm1", width)
    yield f"{name}.attn.qkv.weight", (3 * width, width)
    yield f"{name}.attn.proj.weight", (width, width)
    yield f"{name}.attn.proj.bias", (width,)
    yield from norm(f"{name}.norm2", width)
    yield from mlp(f"{name}.mlp", width)


def cross_attention_block(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    """Self-attention, cross-attention with projections of its own, MLP."""
    yield from self_attention_block(name, width)
    yield from norm(f"{name}.norm_y", width)
    yield from norm(f"{name}.norm3", width)
    for projection in ("projq", "projk", "projv", "proj"):
        yield f"{name}.cross_attn.{projection}.weight", (width, width)
    yield f"{name}.cross_attn.proj.bias", (width,)


def norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    """A LayerNorm."""
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def mlp(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    """An MLP of ratio 4."""
    yield f"{name}.fc1.weight", (4 * width, width)
    yield f"{name}.fc1.bias", (4 * width,)
    yield f"{name}.fc2.weight", (width, 4 * width)
    yield f"{name}.fc2.bias", (width,)


def training_state() -> dict[str, Any]:
    """Entries that a conversion leaves out; learning rates are numpy scalars, as schedules make them."""
    group = {"lr": np.float64(5e-4), "weight_decay": np.float64(0.04), "betas": (0.9, 0.999), "params": [0, 1]}
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, 2)}
    return {
        "optimizer": {"state": {0: moments}, "param_groups": [group]},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 5},
        "dino_loss": OrderedDict(center=torch.zeros(1, 65536)),
        "epoch": 300,
    }


def save(path: Path, entries: dict[str, Any], args: str | None, recipe: dict[str, Any]) -> None:
    """Write the entries and the recipe with `torch.save`; classes made for the purpose exist only meanwhile."""
    if args is None:
        torch.save(entries, path)
    elif args == "dict":
        torch.save({**entries, "args": recipe}, path)
    elif args == "namespace":
        torch.save({**entries, "args": argparse.Namespace(**recipe)}, path)
    elif args == "omegaconf":
        from omegaconf import OmegaConf

        torch.save({**entries, "args": OmegaConf.create(recipe)}, path)
    elif args == "object":
        classes = passing_classes("authors_private_recipe", "Recipe")
        settings = classes["Recipe"]()
        vars(settings).update(recipe)
        with classes["modules"]:
            torch.save({**entries, "args": settings}, path)
    elif args == "omegaconf-like":
        classes = passing_classes("omegaconf", "DictConfig", "ListConfig", "AnyNode", "Metadata")
        with classes["modules"]:
            torch.save({**entries, "args": node(recipe, None, classes)}, path)
    else:
        raise ValueError(f"args is {args!r}")


def passing_classes(module: str, *names: str) -> dict[str, Any]:
    """Make classes that can be pickled inside `with classes["modules"]` and imported nowhere else."""
    home = types.ModuleType(module)
    classes: dict[str, Any] = {name: type(name, (), {"__module__": module}) for name in names}
    vars(home).update(classes)
    return {**classes, "modules": mock.patch.dict(sys.modules, {module: home})}


def node(value: Any, parent: Any, classes: dict[str, Any]) -> Any:
    """Nest a value as OmegaConf does: each part is an object that knows its parent."""
    kind = "DictConfig" if isinstance(value, dict) else "ListConfig" if isinstance(value, list) else "AnyNode"
    result = classes[kind]()
    metadata = classes["Metadata"]()
    vars(metadata).update(ref_type=Any, flags={}, resolver_cache={})
    vars(result).update(_metadata=metadata, _parent=parent)
    if isinstance(value, dict):
        result._content = {key: node(item, result, classes) for key, item in value.items()}
    elif isinstance(value, list):
        result._content = [node(item, result, classes) for item in value]
    else:
        result._val = value
    return result
