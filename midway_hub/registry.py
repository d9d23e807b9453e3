"""The named checkpoints: where they live, what they are, under which licence, and what was measured with them."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_log = logging.getLogger("midway_hub")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DEFAULT_MODEL = "midway_pico"

PAPER = "Hoang & Ren, arXiv 2510.05558"
_AUTHORS_REPO = "agentic-learning-ai-lab/Midway-Network"
_CC_BY = "https://creativecommons.org/licenses/by/4.0/"
_APACHE = "https://www.apache.org/licenses/LICENSE-2.0"
_CITATION = (
    "Hoang & Ren. Midway Network: Learning Representations for Recognition and Motion from Latent "
    "Dynamics. ICLR 2026, arXiv 2510.05558."
)

# sha256 of midway_hub/weights/midway_pico/model.safetensors.
SYNTHETIC_SHA256: str | None = "0f2ff98b79e8cd3e1689bb9892d5b0bbb6b4ab5c8506a6f16bd5dea18c982519"

# sha256 of midway_hub/weights/midway_pico_untrained/model.safetensors. None switches the check off.
PICO_SHA256: str | None = "894ad64de092de5bb1cbd87ae2581bec624b244e1ff218c36cad358082fb4485"


@dataclass(frozen=True)
class Reported:
    """A number that a publication reports. This project did not measure it."""

    task: str
    value: str
    source: str


@dataclass(frozen=True)
class Measured:
    """A number that this project measured, with the command that prints it again."""

    value: str
    command: str


@dataclass(frozen=True)
class RegistryEntry:
    """One named checkpoint.

    Attributes:
        name: What `from_pretrained` takes.
        summary: One sentence of what it is.
        task: What it can do: any of `TASKS`.
        architecture: Keyword arguments of `MidwayConfig`. Weights that say otherwise win over it.
        repo_id: Hugging Face repository, or None for weights inside the package.
        filename: File in the repository: a safetensors file, or the authors' `.pth`, which is converted once.
        revision: Pinned commit. None: the commit that a cache resolves first is kept in that cache.
        sha256: Pinned sha256 of `filename` (bundled: of `model.safetensors`). None: the Hub's own checksum is checked.
        bundled: Whether the weights are inside the package.
        licence: SPDX name of the weights' licence.
        licence_url: Where the licence can be read.
        citation: Whom to name when the weights are used.
        recipe: Training in one paragraph.
        datasets: Short names of what it was trained on.
        parameters: Numbers of parameters by part; copies that follow by moving average are not counted.
        torch_hub: Name of its torch.hub entry.
        input_size: Channels, height and width in pixels of a training crop.
        mean: Mean of an RGB channel over [0, 1] that inputs are normalised with.
        std: Standard deviation of an RGB channel over [0, 1] that inputs are normalised with.
        trained: Whether the weights were trained. False: seeded random numbers.
        limits: What it is not good for, a sentence each; empty: what holds for the authors' releases.
        pictures: Captions by file beside the card.
        measured: Numbers that this project measured, by what they are.
        reported: Numbers that a publication reports.
    """

    name: str
    summary: str
    task: tuple[str, ...]
    architecture: Mapping[str, Any]
    repo_id: str | None = None
    filename: str | None = None
    revision: str | None = None
    sha256: str | None = None
    bundled: bool = False
    licence: str = "CC-BY-4.0"
    licence_url: str | None = _CC_BY
    citation: str = _CITATION
    recipe: str = ""
    datasets: tuple[str, ...] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    torch_hub: str = ""
    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    trained: bool = True
    limits: tuple[str, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    reported: tuple[Reported, ...] = ()


class UnknownModelError(ValueError):
    """A name that is not in the registry; the message lists close ones."""


TASKS = ("features", "motion", "flow", "segmentation")

_VITS = {"embed_dim": 384, "num_heads": 6, "motion_dim": 192, "target_network": "ema"}
_VITB = {"embed_dim": 768, "num_heads": 12, "motion_dim": 192, "target_network": "ema"}
_PICO = {
    "embed_dim": 128,
    "depth": 12,
    "num_heads": 4,
    "motion_dim": 64,
    "midway_heads": 2,
    "backward_heads": 4,
    "predictor_heads": 4,
    "target_network": "shared",
}

_SYNTHETIC = {
    "image_size": 64,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 4,
    "levels": (1,),
    "num_motion_tokens": 4,
    "motion_dim": 64,
    "midway_depth": 2,
    "midway_heads": 2,
    "backward_heads": 4,
    "predictor_depth": 3,
    "predictor_heads": 4,
    "target_network": "shared",
}
_EVALUATE = "python -m midway_hub.training evaluate"
_OF_SYNTHETIC = "--world-size 64x64 -m midway_pico"
_PEERS = "-m midway_pico --peers zero,dis"
_PLANES = "--dataset world:flow_planes_pico -s textures.sharpness=[0.5,1.0]"

_ALL = (
    RegistryEntry(
        name="midway_vits_bdd100k",
        summary="The authors' ViT-S/16, pretrained on BDD100K dash-cam videos.",
        task=("features", "motion"),
        architecture=_VITS,
        repo_id=_AUTHORS_REPO,
        filename="midway-bdd-vit-s-ep300.pth",
        datasets=("bdd100k",),
        parameters={"encoder": 21_665_664, "dynamics": 36_600_000},
        torch_hub="midway_vits",
        recipe=(
            "BDD100K: 70 000 dash-cam videos, 720p. 300 epochs at 224×224 on frame pairs 0.5 to 1 s apart, batch 200 "
            "pairs, AdamW, 2×A100 for 66 h."
        ),
        reported=(
            Reported("BDD100K segmentation, frozen, linear: mIoU / accuracy (%)", "39.7 / 90.3", "Table 1"),
            Reported("BDD100K segmentation, frozen, UperNet: mIoU / accuracy (%)", "50.4 / 92.4", "Table 1"),
            Reported("Cityscapes segmentation, frozen, linear: mIoU / accuracy (%)", "43.0 / 90.9", "Table 1"),
            Reported("Cityscapes segmentation, frozen, UperNet: mIoU / accuracy (%)", "58.5 / 93.5", "Table 1"),
            Reported("FlyingThings flow, finetuned: EPE clean / final (px)", "7.3 / 6.8", "Table 1"),
            Reported("Sintel flow, finetuned: EPE clean / final (px)", "4.1 / 4.9", "Table 1"),
            Reported("FlyingThings flow, frozen: EPE clean / final (px)", "20.2 / 19.3", "Table 7"),
            Reported("Sintel flow, frozen: EPE clean / final (px)", "12.8 / 12.6", "Table 7"),
        ),
    ),
    RegistryEntry(
        name="midway_vitb_bdd100k",
        summary="The authors' ViT-B/16, pretrained on BDD100K dash-cam videos.",
        task=("features", "motion"),
        architecture=_VITB,
        repo_id=_AUTHORS_REPO,
        filename="midway-bdd-vit-b-ep300.pth",
        datasets=("bdd100k",),
        parameters={"encoder": 85_798_656, "dynamics (motion width 192)": 129_722_304},
        torch_hub="midway_vitb",
        recipe=(
            "BDD100K: 70 000 dash-cam videos, 720p. 300 epochs at 224×224 on frame pairs 0.5 to 1 s apart, AdamW, "
            "8×RTX A6000 for 27 h. Pairs per step: 800 by the released recipe (100 on each GPU), 200 by the paper's "
            "Table 8; which of them ran is not known. The motion width is read from the weights: the recipe meant 384, "
            "its published configuration yields 192."
        ),
        reported=(
            Reported("BDD100K segmentation, frozen, linear: mIoU / accuracy (%)", "48.2 / 91.6", "Table 1"),
            Reported("BDD100K segmentation, frozen, UperNet: mIoU / accuracy (%)", "55.2 / 93.1", "Table 1"),
            Reported("Cityscapes segmentation, frozen, linear: mIoU / accuracy (%)", "51.1 / 92.1", "Table 1"),
            Reported("Cityscapes segmentation, frozen, UperNet: mIoU / accuracy (%)", "62.2 / 94.0", "Table 1"),
            Reported("FlyingThings flow, finetuned: EPE clean / final (px)", "7.0 / 6.4", "Table 1"),
            Reported("Sintel flow, finetuned: EPE clean / final (px)", "4.1 / 4.8", "Table 1"),
            Reported("FlyingThings flow, frozen: EPE clean / final (px)", "21.7 / 20.2", "Table 7"),
            Reported("Sintel flow, frozen: EPE clean / final (px)", "13.7 / 12.9", "Table 7"),
        ),
    ),
    RegistryEntry(
        name="midway_vits_wtvenice",
        summary="The authors' ViT-S/16, pretrained on the Venice video of Walking Tours.",
        task=("features", "motion"),
        architecture=_VITS,
        repo_id=_AUTHORS_REPO,
        filename="midway-wt-venice-vit-s-ep100.pth",
        datasets=("walking-tours-venice",),
        parameters={"encoder": 21_665_664, "dynamics": 36_600_000},
        torch_hub="midway_vits_wt",
        recipe=(
            "The Venice video of Walking Tours: one long walk, 720p. 100 epochs at 224×224 on frame pairs, AdamW, "
            "4×RTX A6000 for 29 h. Pairs per step: 80 by the released recipe (20 on each GPU), 200 by the paper's "
            "Table 8; which of them ran is not known. Neither is how long segmentation was finetuned for the numbers "
            "below: 160 000 steps of 16 crops (WT-Sem: 4) by the papers that the paper follows, 60 000 of 4 by the "
            "evaluation that the released recipe names."
        ),
        reported=(
            Reported("Walking Tours segmentation, finetuned, UperNet: mIoU / accuracy (%)", "13.1 / 85.4", "Table 2"),
            Reported("ADE20K segmentation, finetuned, UperNet: mIoU / accuracy (%)", "33.4 / 76.9", "Table 2"),
            Reported("ADE20K segmentation, frozen, linear: mIoU / accuracy (%)", "12.1 / 61.3", "Table 6"),
            Reported("FlyingThings flow, finetuned: EPE clean / final (px)", "7.7 / 7.4", "Table 2"),
            Reported("Sintel flow, finetuned: EPE clean / final (px)", "5.2 / 6.6", "Table 2"),
        ),
    ),
    RegistryEntry(
        name="midway_pico",
        summary="A small network with flow and segmentation heads, trained on synthetic worlds; inside the package.",
        task=("features", "motion", "flow", "segmentation"),
        architecture=_SYNTHETIC,
        sha256=SYNTHETIC_SHA256,
        bundled=True,
        parameters={"encoder": 166_656, "dynamics": 349_248, "flow head": 1_249_096, "segmentation head": 522_633},
        torch_hub="midway_pico",
        input_size=(3, 64, 64),
        licence="Apache-2.0",
        licence_url=_APACHE,
        citation="midway_hub",
        recipe=(
            "Synthetic worlds alone, on two CPU cores: Midway pretraining (5,000 steps of 16 pairs of moving planes); "
            "flow with encoder and dynamics (3,400 steps of 8 pairs of 96×128 pixels), then the correlation "
            "head alone on "
            "mixed worlds (2,400 of 8, 128×160), with the dynamics (1,600 of 16, 64×64), and alone again (1,500 of 6, "
            "192×256); UperNet for the worlds' own classes on the frozen encoder (2,000 of 8). All of it: `python -m "
            "midway_hub.training reproduce midway_pico --scale cpu`. The recipe has a full scale for one GPU, "
            "which has "
            "not been run."
        ),
        limits=(
            "Learnt from synthetic worlds alone. Its flow is made for real use; features, heatmaps and classes "
            "are there "
            "so that every part of the package shows something without a download.",
            "Frames are RGB, normalised with the mean and standard deviation below. Any height and width work, whole "
            "frames at once; encoder and dynamics see them at a short side of 96 pixels.",
            "Motion of up to about half a training crop, 96 pixels, is told; flow is still wrong where large "
            "things without texture move far, and within thin parts.",
            "The nine classes are those of the synthetic worlds (background, ground, wall and six shapes); no class of "
            "real scenes is among them.",
            "Perturbation peaks tell motions of more than a patch (8 pixels) on textured surfaces. Where most "
            "things move by less, as in the rich worlds below, peaks stay where the patch was, and classes are "
            "a rough guess. Heatmaps, tracks and `coarse_flow` of real clips are rough.",
        ),
        pictures={
            "midway_pico_highway.jpg": "Flow between neighbouring frames of the bundled highway clip, by `midway-hub "
            "demo`: out of the vanishing point, the sky still, whole frames at once; leaves before the sky are "
            "mixed with it."
        },
        measured={
            "flow, held-out worlds of 64×64, EPE in pixels (standing still 2.51, OpenCV's DIS 1.03)": Measured(
                "0.71", f"{_EVALUATE} flow --dataset world --world-size 64x64 --worlds 128 {_PEERS}"
            ),
            "flow, held-out worlds of 128×160 (standing still 4.97, DIS 1.25)": Measured(
                "0.61", f"{_EVALUATE} flow --dataset world --world-size 128x160 --worlds 128 {_PEERS}"
            ),
            "flow, held-out worlds of 256×320 (standing still 10.27, DIS 2.01)": Measured(
                "0.93", f"{_EVALUATE} flow --dataset world --world-size 256x320 --worlds 64 {_PEERS}"
            ),
            "flow, held-out planes of 64×64 (standing still 10.57, DIS 3.11)": Measured(
                "0.27", f"{_EVALUATE} flow {_PLANES} --world-size 64x64 --worlds 128 {_PEERS}"
            ),
            "flow, still camera and moving objects, 64×64 (standing still 0.70, DIS 0.95)": Measured(
                "0.62",
                f"{_EVALUATE} flow --dataset world --world-size 64x64 -s motion.still_camera=1 -s ground_probability=0 "
                f"-s wall_probability=0 --worlds 128 {_PEERS}",
            ),
            "flow, three pairs of FlyingChairs (384×512, 384×512 and a crop of 50×50), never seen, EPE of each "
            "(DIS 1.75, "
            "1.32, 0.90); PAIRS is a folder whose pairs.txt lists them": Measured(
                "1.35, 1.34, 0.71", f"{_EVALUATE} flow --dataset folder --root PAIRS {_PEERS}"
            ),
            "perturbation peaks, 48 held-out planes, EPE in pixels (standing still 10.01)": Measured(
                "3.61, their soft-argmax 2.33", f"{_EVALUATE} dynamics {_PLANES} {_OF_SYNTHETIC} --worlds 48"
            ),
            "perturbation peaks, 48 held-out worlds, EPE in pixels (standing still 2.38)": Measured(
                "2.38, their soft-argmax 2.10", f"{_EVALUATE} dynamics --dataset world {_OF_SYNTHETIC} --worlds 48"
            ),
            "classes, 128 held-out worlds of 128×160, mIoU (%)": Measured(
                "23.1", f"{_EVALUATE} segmentation --dataset world --world-size 128x160 -m midway_pico --worlds 128"
            ),
        },
    ),
    RegistryEntry(
        name="midway_pico_untrained",
        summary="UNTRAINED: a small network of seeded random numbers, inside the package, for trying the code out.",
        task=("features", "motion"),
        architecture=_PICO,
        sha256=PICO_SHA256,
        bundled=True,
        parameters={"encoder": 2_503_296, "dynamics": 4_106_304},
        torch_hub="midway_pico_untrained",
        licence="Apache-2.0",
        licence_url=_APACHE,
        citation="midway_hub",
        recipe="None. The numbers are drawn from a seeded random generator; nothing was learned.",
        trained=False,
    ),
)
_ENTRIES: dict[str, RegistryEntry] = {entry.name: entry for entry in _ALL}

ALIASES = {"midway_pico_synthetic": "midway_pico"}
"""Names that checkpoints had before; they still work, with a note."""


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """List the registered names.

    Args:
        pattern: Shell pattern that a name must match, such as `"*vits*"`.
        task: Keep the checkpoints that can do this: one of `TASKS`.

    Returns:
        Names in the registry's order; empty if none matches.

    Raises:
        TypeError: `pattern` is not a string.
        ValueError: `task` is not one of `TASKS`.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a string such as '*vits*', got {type(pattern).__name__}")
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return [
        name
        for name, entry in _ENTRIES.items()
        if fnmatch.fnmatchcase(name, pattern) and (task is None or task in entry.task)
    ]


def is_name(text: object) -> bool:
    """Return whether this is the name of a registered checkpoint, and no path that exists: that would win."""
    return isinstance(text, str) and (text in _ENTRIES or text in ALIASES) and not Path(text).exists()


def get_entry(name: str) -> RegistryEntry:
    """Look a registered checkpoint up.

    Args:
        name: One of `list_models()`, or a name that one had before.

    Returns:
        The checkpoint's entry, under the name it has now.

    Raises:
        UnknownModelError: There is no such name; the message lists the close ones.
    """
    if name in ALIASES:
        _log.warning("%s is called %s now; it has other weights, and the old name will go", name, ALIASES[name])
        name = ALIASES[name]
    if name not in _ENTRIES:
        raise UnknownModelError(f"There is no checkpoint named {name!r}. {suggest(name)}")
    return _ENTRIES[name]


def suggest(name: str) -> str:
    """Say which registered names somebody who wrote `name` may have meant.

    Args:
        name: What was written.

    Returns:
        One or two sentences for an error message.
    """
    same_spelling = [known for known in _ENTRIES if _letters(known) == _letters(name)]
    if same_spelling:
        return f"It is spelt {same_spelling[0]!r}: small letters, joined by underscores."
    by_letters = {_letters(known): known for known in _ENTRIES}
    close = [by_letters[found] for found in difflib.get_close_matches(_letters(name), by_letters, n=3, cutoff=0.6)]
    close += [known for known in _ENTRIES if _letters(known).startswith(_letters(name)[:24]) and known not in close]
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close and _letters(name) else ""
    return f"{meant}Registered names: {', '.join(_ENTRIES)}. A Hub repository is written 'owner/name'."


def of_repository(repo_id: str) -> list[str]:
    """List the registered names whose weights live in one Hugging Face repository.

    Args:
        repo_id: `"owner/name"`.

    Returns:
        Names, possibly none.
    """
    return [name for name, entry in _ENTRIES.items() if entry.repo_id == repo_id]


def of_file(filename: str) -> str | None:
    """Find the registered name of a published file.

    Args:
        filename: Name of the file, without folders.

    Returns:
        The name, or None.
    """
    return next((name for name, entry in _ENTRIES.items() if entry.filename == filename), None)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


__all__ = [
    "TASKS",
    "Measured",
    "RegistryEntry",
    "Reported",
    "UnknownModelError",
    "get_entry",
    "list_models",
]
