"""One strip per pair and estimator: frames, truth, estimate, error."""

from __future__ import annotations

import numpy as np
from PIL import Image

from midway_hub.drawing import strip
from midway_hub.flow_io import error_picture, flow_picture
from midway_hub.training.data.flow.sample import FlowSample
from midway_hub.training.evaluation.flow.metrics import pixel_errors

LARGEST_ERROR = 10.0  # pixels; one scale for all, so that strips can be compared


def flow_strip(sample: FlowSample, estimate: np.ndarray, *, estimator: str, width: int = 400) -> Image.Image:
    """Draw a pair with its true and its estimated flow, in the same colours, and the error.

    Args:
        sample: The pair.
        estimate: (2, H, W) in pixels.
        estimator: What the caption calls it.
        width: Of a panel in pixels.
    """
    errors, step = pixel_errors(estimate, sample), sample.flow_scale
    truth, valid = sample.flow[::step, ::step], sample.valid[::step, ::step]
    largest = max(float(errors.speed.max(initial=0)), 1.0)
    error = np.zeros(errors.valid.shape, dtype=np.float32)
    error[errors.valid] = errors.epe
    mean = f"{errors.epe.mean():.2f}" if errors.epe.size else "-"
    caption = f"error 0 to {LARGEST_ERROR:g} px, mean {mean}"
    panels = [
        (sample.name, Image.fromarray(sample.first)),
        ("second frame", Image.fromarray(sample.second)),
        (f"truth, up to {largest:.1f} px", flow_picture(truth, valid=valid, largest=largest)),
        (estimator, flow_picture(estimate.transpose(1, 2, 0), largest=largest)),
        (caption, error_picture(error, valid=errors.valid, largest=LARGEST_ERROR)),
    ]
    return strip(panels, width=width)
