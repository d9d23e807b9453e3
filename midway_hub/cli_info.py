"""The command `midway-hub info`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import CacheDir, Json, Offline, Revision
from midway_hub.heads import FlowHeadConfig, SegmentationHeadConfig

if TYPE_CHECKING:
    from midway_hub.config import MidwayConfig
    from midway_hub.hub.description import Description, Weights

CLASSES = 8
EXCERPT = 12
"""Classes and lines of a card that are shown."""


def info(
    name: Annotated[str, typer.Argument(help="Registry name, folder, .safetensors file, or Hub repo.")],
    revision: Revision = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show what a checkpoint is: of a named one its model card, of any other what it holds; no weights are loaded."""
    from dataclasses import asdict

    from midway_hub.cards import card_of
    from midway_hub.hub.description import describe
    from midway_hub.hub.resolution import as_path
    from midway_hub.registry import get_entry

    if as_path(name) is None and "/" not in name:
        entry = get_entry(name)
        if as_json:
            console.print_json(asdict(entry))
        else:
            console.markdown(card_of(name))
        return
    found = describe(name, revision=revision, cache_dir=cache_dir, local_files_only=offline)
    if as_json:
        console.print_json({**asdict(found), "config": found.config.to_dict()})
        return
    console.facts(described(found), title=found.source)
    if found.card:
        console.say("")
        console.markdown(excerpt(found.card))


def described(found: Description) -> dict[str, Any]:
    """Put a description into names and values."""
    config = found.config
    shared = config.target_network == "shared"
    facts: dict[str, Any] = {
        "encoder": f"width {config.embed_dim}, {config.depth} blocks of {config.num_heads} heads, patches of "
        f"{config.patch_size}×{config.patch_size} pixels, positions of {config.image_size}×{config.image_size} pixels",
        "networks": "one encoder for source and target frames" if shared else "student and teacher (EMA)",
        "dynamics": _dynamics(config),
        "flow head": _flow_head(config),
        "segmentation head": _segmentation_head(config),
        "weights": _weights(found.weights),
        "processor": _processor(found.processor),
        "files": sorted(path.name for path in found.directory.iterdir() if path.is_file()),
    }
    if found.origin:
        facts["converted from"] = found.origin
    if found.commit:
        facts["commit"] = found.commit
    return facts


def excerpt(card: str) -> str:
    """Return the first lines of a card, its header and the lines that are no text left out."""
    body = card.split("---\n", 2)[-1] if card.startswith("---\n") else card
    lines = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL).strip().splitlines()
    shown = "\n".join(lines[:EXCERPT])
    if shown.count("```") % 2:  # a block of code that is cut through
        shown = shown[: shown.rindex("```")].rstrip()
    return shown + (f"\n\n({len(lines)} lines in all: README.md)" if len(lines) > EXCERPT else "") + "\n"


def _dynamics(config: MidwayConfig) -> str:
    if not config.dynamics:
        return "none: an encoder alone"
    levels = ", ".join(map(str, config.levels))
    return f"levels {levels}; {config.num_motion_tokens} motion tokens of width {config.motion_dim}"


def _flow_head(config: MidwayConfig) -> str:
    if config.flow_head is None:
        return "none"
    head = FlowHeadConfig.of(config.flow_head)
    return f"in windows of {head.tile[0]}×{head.tile[1]} pixels" if head.tiled else "on whole frames"


def _segmentation_head(config: MidwayConfig) -> str:
    if config.segmentation_head is None:
        return "none"
    head = SegmentationHeadConfig.of(config.segmentation_head)
    more = ", ..." if len(head.classes) > CLASSES else ""
    return f"{head.name}, {len(head.classes)} classes: {', '.join(head.classes[:CLASSES])}{more}"


def _weights(weights: Weights | None) -> str:
    if weights is None:
        return "not downloaded: `midway-hub download` fetches them"
    size = sum(weights.files.values()) / 1e6
    return f"{weights.parameters:,} parameters, {' and '.join(weights.dtypes)}, {size:.1f} MB"


def _processor(settings: dict[str, Any] | None) -> str:
    if settings is None:
        return "does not say how frames are fitted and normalised: the defaults of MidwayImageProcessor"
    shown = ("fit", "size", "multiple", "image_mean", "image_std", "resample")
    return ", ".join(f"{name} {settings[name]}" for name in shown if settings.get(name) is not None)
