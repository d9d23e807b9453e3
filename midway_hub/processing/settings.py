"""A checkpoint's own `preprocessor_config.json`: how frames are made for its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midway_hub.processing.normalisation import IMAGENET, Normalisation
from midway_hub.processing.processor import MidwayImageProcessor


def read_processor(
    file: Path | None, *, patch_size: int | None = None, normalisation: Normalisation = IMAGENET
) -> MidwayImageProcessor:
    """Make the processor that a checkpoint was saved with.

    Args:
        file: Its `preprocessor_config.json`; None: it has none.
        patch_size: Side of the network's patches; a `multiple` that is not made of whole ones gives way to it.
        normalisation: By what frames are normalised where there is no file.

    Returns:
        The processor.

    Raises:
        CorruptWeightsError: The file is no JSON object.
        ValueError: It says what no processor takes; the message names file, key, what was seen and what is wanted.
    """
    values = normalisation.to_dict() if file is None else _values(file)
    try:
        processor = MidwayImageProcessor(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: {error}. Mend the file, or write another: MidwayImageProcessor(image_mean=..., image_std=...)"
            f".save_pretrained(FOLDER)"
        ) from error
    if patch_size is not None and ("multiple" not in values or processor.multiple % patch_size):
        processor.multiple = patch_size
    return processor


def _values(file: Path) -> dict[str, Any]:
    from midway_hub.hub.weight_files import read_object

    values = read_object(file)
    foreign = values.get("image_processor_type", MidwayImageProcessor.__name__)
    if foreign != MidwayImageProcessor.__name__:
        raise ValueError(
            f"{file}: image_processor_type is {foreign!r}, wanted {MidwayImageProcessor.__name__!r}; write its numbers "
            f"anew: MidwayImageProcessor(image_mean={values.get('image_mean')}, image_std={values.get('image_std')})"
            f".save_pretrained(FOLDER)"
        )
    return values
