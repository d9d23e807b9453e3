"""What wrong labels look like: guesses at the mistake behind the values that a data set's label maps hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from midway_hub.heads import IGNORE
from midway_hub.training.data.segmentation.classes_ade20k import ADE20K

if TYPE_CHECKING:
    from midway_hub.training.data.segmentation.encodings import Encoding

MUCH_IGNORED = 0.5


def explain_unknown(encoding: str, values: Collection[int], classes: int) -> str:
    """Guess why a label map holds values that are no class, and say what to do.

    Args:
        encoding: Name of the encoding that it was read with.
        values: The values that are no class.
        classes: Number of classes, K.
    """
    if encoding == "colours":
        return "every colour must be the palette's; a picture that was resized, blended or saved as JPEG has others"
    if encoding == "cityscapes_label_ids":
        return "label ids are 0 to 33; is this an instance map (*_instanceIds.png)?"
    first = 1 if encoding == "zero_is_ignored" else 0
    last = classes - 1 + first
    if set(values) == {254}:
        return "254 is left of 255 where 1 was subtracted from every label: ignore=[254], or encode the labels anew"
    if first == 0 and set(values) == {classes}:
        return (
            f"the {classes} classes are 0 to {last}, so these labels look one too high: if 0 is 'other' in them, "
            f"take encoding=zero_is_ignored; if {classes} is void, ignore=[{classes}]"
        )
    if first == 0 and classes == 19 and max(values) <= 33:
        return "these look like Cityscapes' label ids (*_labelIds.png): take encoding=cityscapes_label_ids"
    return (
        f"with {encoding} the {classes} classes are {first} to {last}; is the list of classes the one of these labels? "
        "ignore=[...] names values that count nowhere"
    )


def suspicions(encoding: Encoding, pixels: Mapping[int, int], classes: Sequence[str]) -> list[str]:
    """Say what looks wrong about the values of a whole data set.

    Args:
        encoding: What they were read with.
        pixels: How many pixels have each value.
        classes: Names of the classes.
    """
    total = sum(pixels.values())
    if not total:
        return ["no label could be read"]
    unknown = sorted(value for value in pixels if value not in encoding.meaning)
    ignored = sum(count for value, count in pixels.items() if encoding.meaning.get(value) == IGNORE)
    found = []
    if unknown:
        share = sum(pixels[value] for value in unknown) / total
        shown = ", ".join(map(encoding.show, unknown[:8])) + ", ..." * (len(unknown) > 8)
        found.append(
            f"{share:.2%} of the pixels have values of no class ({shown}), which stop training: "
            + explain_unknown(encoding.name, unknown, len(classes))
        )
    if ignored > MUCH_IGNORED * total:
        found.append(f"{ignored / total:.1%} of the pixels are ignored: is encoding={encoding.name} the right one?")
    return found + _wrong_encoding(encoding.name, {value for value in pixels if pixels[value]}, classes)


def _wrong_encoding(encoding: str, present: set[int], classes: Sequence[str]) -> list[str]:
    """Suspicions about values that can all be read, but seem to mean something else."""
    count = len(classes)
    numbers = present - {IGNORE}
    found = []
    if encoding == "train_ids" and 0 not in present and count in numbers:
        found.append(
            f"labels look one too high: {classes[0]!r} (0) is in no picture, but there is a value {count}; "
            "take encoding=zero_is_ignored"
        )
    if encoding == "train_ids" and 0 in present and tuple(classes) == tuple(name for name, _ in ADE20K):
        found.append(
            "0 is read as 'wall', but in ADE20K's own files it is 'other' and 'wall' is 1: take "
            "encoding=zero_is_ignored unless these labels were reduced already"
        )
    if encoding == "zero_is_ignored" and IGNORE in present:
        found.append(
            "there is a value 255 beside the ignored 0: if these labels were reduced already, "
            f"0 is {classes[0]!r} and every class is read one too low; take encoding=train_ids then"
        )
    if encoding == "cityscapes_label_ids" and IGNORE in present and numbers and max(numbers) < count:
        found.append(f"there is 255 and nothing from {count} to 33: these look like train ids, take encoding=train_ids")
    return found
