"""The segmentation data sets by name: where their files lie and what their labels mean."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from midway_hub.extraction.sources import IMAGE_SUFFIXES
from midway_hub.training.data.segmentation.classes import class_list
from midway_hub.training.data.segmentation.encodings import ENCODINGS
from midway_hub.training.data.segmentation.folder import LabelledFolder, find_labelled_files
from midway_hub.training.settings import Settings


class FolderLayout(Settings):
    """Where a data set's files lie below its root, and what their labels mean."""

    description: str = "pictures and label maps of one's own"
    """What it is."""

    images: str = "images"
    """Folder of the pictures, below the root."""

    labels: str = "labels"
    """Folder of the label maps, below the root."""

    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    """What pictures' names end in; the rest of the path below `images` names the picture."""

    label_suffix: str = ".png"
    """What label maps' names end in, after the picture's name."""

    classes: str | tuple[str, ...] = "cityscapes"
    """Name of a list of classes (`CLASS_LISTS`), or the names themselves in the order of their labels."""

    palette: tuple[tuple[int, int, int], ...] | None = None
    """Colours of the classes, where others than the list's are wanted."""

    encoding: str = "train_ids"
    """What the values of label maps mean (`ENCODINGS`)."""

    ignore: tuple[int, ...] = ()
    """Values of label maps that count nowhere, besides those of the encoding."""

    published: int | None = Field(default=None, ge=1)
    """How many pictures the complete data set has."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ENCODINGS:
            raise ValueError(f"unknown encoding {value!r}; {_hint(value, list(ENCODINGS))}")
        return value


def _bdd100k(split: str, published: int) -> FolderLayout:
    return FolderLayout(
        description="BDD100K's 10K images, 19 classes (a download apart from the videos)",
        images=f"images/10k/{split}",
        labels=f"labels/sem_seg/masks/{split}",
        image_suffixes=(".jpg",),
        classes="bdd100k",
        published=published,
    )


def _cityscapes(split: str, published: int) -> FolderLayout:
    return FolderLayout(
        description="Cityscapes' fine annotations, 19 classes",
        images=f"leftImg8bit/{split}",
        labels=f"gtFine/{split}",
        image_suffixes=("_leftImg8bit.png",),
        label_suffix="_gtFine_labelIds.png",
        encoding="cityscapes_label_ids",
        published=published,
    )


def _ade20k(split: str, published: int) -> FolderLayout:
    return FolderLayout(
        description="ADE20K's scene parsing benchmark (ADEChallengeData2016), 150 classes",
        images=f"images/{split}",
        labels=f"annotations/{split}",
        image_suffixes=(".jpg",),
        classes="ade20k",
        encoding="zero_is_ignored",
        published=published,
    )


def _wt_sem(split: str, published: int) -> FolderLayout:
    return FolderLayout(
        description="WT-Sem, Walking Tours with labels by OpenSeeD, 150 classes (layout and encoding to be checked)",
        images=f"images/{split}",
        labels=f"annotations/{split}",
        classes="ade20k",
        encoding="zero_is_ignored",
        published=published,
    )


SEGMENTATION_DATASETS: dict[str, FolderLayout] = {
    "ade20k/train": _ade20k("training", 20210),
    "ade20k/val": _ade20k("validation", 2000),
    "bdd100k/train": _bdd100k("train", 7000),
    "bdd100k/val": _bdd100k("val", 1000),
    "cityscapes/train": _cityscapes("train", 2975),
    "cityscapes/val": _cityscapes("val", 500),
    "folder": FolderLayout(),
    "wt_sem/train": _wt_sem("train", 25910),
    "wt_sem/val": _wt_sem("val", 6170),
}
"""Layout of every data set by name (spec downstream B4, B5); WT-Sem's is a guess, as its files are not documented."""


def build_segmentation_dataset(name: str, root: str | Path, **options: Any) -> LabelledFolder:
    """Find the files of a data set.

    Args:
        name: One of `SEGMENTATION_DATASETS`.
        root: The data set's folder.
        options: Fields of `FolderLayout` that differ from the data set's own, such as `encoding="train_ids"` and
            `label_suffix="_gtFine_labelTrainIds.png"` for Cityscapes' train ids.

    Raises:
        FileNotFoundError: There is no such folder, or no file of the data set in it.
        ValueError: An unknown name or option, or options that do not fit.
    """
    if name not in SEGMENTATION_DATASETS:
        raise ValueError(
            f"unknown segmentation data set {name!r}; {_hint(name, list(SEGMENTATION_DATASETS))}; "
            "'folder' reads any pictures and label maps"
        )
    layout, root = _with_options(name, options), Path(root)
    classes = class_list(layout.classes, layout.palette)
    encoding = ENCODINGS[layout.encoding](classes, layout.ignore)
    files = find_labelled_files(
        root / layout.images,
        root / layout.labels,
        image_suffixes=layout.image_suffixes,
        label_suffix=layout.label_suffix,
    )
    if not files:
        raise FileNotFoundError(_nothing_found(name, root, layout))
    return LabelledFolder(name, files, classes, encoding, published=layout.published)


def _with_options(name: str, options: dict[str, Any]) -> FolderLayout:
    for option in options:
        if option == "reduce_zero_label":
            raise ValueError(f"{name} takes encoding='zero_is_ignored' or 'train_ids', not reduce_zero_label")
        if option not in FolderLayout.model_fields:
            raise ValueError(f"{name} has no option {option!r}; {_hint(option, list(FolderLayout.model_fields))}")
    return FolderLayout(**{**SEGMENTATION_DATASETS[name].model_dump(), **options})


def _nothing_found(name: str, root: Path, layout: FolderLayout) -> str:
    if not root.is_dir():
        return f"{name}: there is no folder {root} (looked for {root.absolute()})"
    wanted = [
        f"{layout.images}/**/*{{{','.join(layout.image_suffixes)}}}",
        f"{layout.labels}/**/*{layout.label_suffix}",
    ]
    looked = f"{name}: no files; looked in {root} for {' and '.join(wanted)}"
    deeper = sorted(path.parent for path in root.glob(f"*/{layout.images.split('/')[0]}") if path.is_dir())
    if deeper:
        return f"{looked}; is the root {deeper[0]}?"
    there = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())
    return f"{looked}; the folder holds {', '.join(there[:8]) or 'nothing'}{', ...' * (len(there) > 8)}"


def _hint(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(known)}"
