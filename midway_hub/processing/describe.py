"""What the image processor does to frames, in plain English."""

from __future__ import annotations

from midway_hub.processing.geometry import Placement, Size, by


def fit_in_words(fit: str, size: int | Size | None, multiple: int, resample: str) -> str:
    """Says what happens to frames of any size."""
    target = by(size) if isinstance(size, tuple) else size
    how = {
        "pad": "keep their size" + (f" and are padded to at least {target}" if size else ""),
        "resize": f"are resized to {target}, whatever their aspect ratio",
        "shortest": f"are resized until their short side is {target}, keeping the aspect ratio",
        "contain": f"are resized to fit into {target}, keeping the aspect ratio, and padded to it",
        "crop": f"are resized to cover {target}, keeping the aspect ratio, and cropped to its centre",
    }[fit]
    padding = f"Padding repeats the edge on the right and at the bottom, up to multiples of {multiple}."
    resizing = "" if fit == "pad" else f" Resizing is {resample} and antialiased."
    return f"Frames {how}. {padding}{resizing}"


def placement_in_words(placement: Placement, model_size: Size) -> str:
    """Says what happens to a frame of one size."""
    source, resized, kept = placement.source, placement.resized, placement.kept
    steps = ["keeps its size" if source == resized else f"is resized to {by(resized)}"]
    if placement.cropped:
        top, left = placement.offset
        steps.append(f"is cropped to {by(kept)} from row {top} and column {left}")
    bottom, right = model_size[0] - kept[0], model_size[1] - kept[1]
    steps.append(f"is padded by {bottom} rows and {right} columns" if bottom or right else "is not padded")
    outside = ", NaN in what was cropped away" if placement.cropped else ""
    return (
        f"A frame of {by(source)} pixels (height×width) {', '.join(steps)}: the model sees "
        f"{by(model_size)}. undo() brings dense outputs back to {by(source)}{outside}."
    )
