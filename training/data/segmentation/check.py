"""Looking whether a data set is all there, before hours are spent on it."""

from __future__ import annotations

import logging

from midway_hub.training.data.segmentation.folder import LabelledFolder
from midway_hub.training.data.segmentation.sample import SegmentationDataset

logger = logging.getLogger("midway_hub")

NAMED = 5


def check_segmentation_dataset(dataset: SegmentationDataset) -> None:
    """Refuse a data set with missing files, without opening any; warn if it has not the published number of pictures.

    Args:
        dataset: The data set.

    Raises:
        FileNotFoundError: Files are missing; the message counts them and names the first.
    """
    missing = dataset.missing()
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise FileNotFoundError(
            f"{dataset.name}: {len(missing)} file{'s' * (len(missing) > 1)} missing for its {len(dataset)} pictures: "
            f"{', '.join(missing[:NAMED])}{more}; complete the data set, or remove what belongs to these files"
        )
    published = dataset.published if isinstance(dataset, LabelledFolder) else None
    if published is not None and len(dataset) != published:
        logger.warning(
            "%s has %d pictures here, the published data set has %d: results cannot be compared with published ones",
            dataset.name,
            len(dataset),
            published,
        )
