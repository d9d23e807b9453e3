"""How one video is measured, and how what was measured of all of them becomes numbers: one way per data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub._durable import whole_file
from midway_hub.analysis.propagation import propagate_labels
from midway_hub.analysis.propagation_keypoints import propagate_keypoints
from midway_hub.analysis.propagation_pictures import draw_keypoints, object_palette, overlay_objects
from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.drawing import strip
from midway_hub.label_maps import object_numbers
from midway_hub.label_pictures import label_map
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.segmentation.files import read_image
from midway_hub.training.evaluation.propagation.datasets import JHMDB_JOINTS, VIP_CLASSES
from midway_hub.training.evaluation.propagation.davis_scores import davis_scores, score_frame
from midway_hub.training.evaluation.propagation.encoders import MeasuredEncoder
from midway_hub.training.evaluation.propagation.matfile import read_mat_array
from midway_hub.training.evaluation.propagation.pck import normalised_distances, pose_scores
from midway_hub.training.evaluation.propagation.sequences import LabelledSequence
from midway_hub.training.evaluation.segmentation.metrics import SegmentationMeter

State = dict[str, Any]


@dataclass(frozen=True)
class Outputs:
    """Where what was found in a video is kept.

    Attributes:
        predictions: Folder for its frames' label maps, or for its keypoints; None: nowhere.
        picture: File for a picture of its first, middle and last frame.
    """

    predictions: Path | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class Measurement:
    """A way of measuring.

    Attributes:
        sequence: Measures one video and returns JSON-able data.
        pooled: Turns those of all videos into numbers.
    """

    sequence: Callable[[MeasuredEncoder, LabelledSequence, PropagationProtocol, Outputs], State]
    pooled: Callable[[Sequence[State]], Any]


def measure_objects(
    encoder: MeasuredEncoder, item: LabelledSequence, protocol: PropagationProtocol, outputs: Outputs
) -> State:
    """DAVIS: J and F of each object in all frames but the first and the last."""
    if len(item.frames) < 3:
        raise SampleError(
            item.name, f"has {len(item.frames)} frames; the first and the last do not count, so wanted 3", always=True
        )
    first = item.label_map(0)
    try:
        ids = object_numbers(first, item.labels[0])
    except ValueError as error:
        raise SampleError(item.name, str(error), always=True) from error
    found: list[tuple[list[float], list[float]]] = []
    for number, labels in _propagated(encoder, item, first, protocol, outputs):
        if 0 < number < len(item.frames) - 1:
            found.append(score_frame(labels, item.label_map(number), ids))
    objects: list[dict[str, Any]] = [
        {"id": label, "j": [j[place] for j, _ in found], "f": [f[place] for _, f in found]}
        for place, label in enumerate(ids)
    ]
    return {"frames": len(item.frames), "jf_mean": davis_scores(objects).jf_mean, "objects": objects}


def measure_parts(
    encoder: MeasuredEncoder, item: LabelledSequence, protocol: PropagationProtocol, outputs: Outputs
) -> State:
    """VIP: which class was taken for which in all labelled frames, the first one included, as CropMAE's code does."""
    meter = SegmentationMeter(VIP_CLASSES)
    for number, labels in _propagated(encoder, item, item.label_map(0), protocol, outputs):
        if number in item.labels:
            meter.update(labels, item.label_map(number), name=f"{item.name}, frame {number}")
    return {"frames": len(item.frames), "labelled": len(item.labels), "state": meter.state()}


def measure_joints(
    encoder: MeasuredEncoder, item: LabelledSequence, protocol: PropagationProtocol, outputs: Outputs
) -> State:
    """JHMDB: how far off each joint is in all frames but the first."""
    truth = joint_positions(item.labels[0])
    frames = item.frames[: len(truth)]
    truth = truth[: len(frames)]
    found = np.stack(list(propagate_keypoints(encoder.encode, frames, truth[0], protocol, device=encoder.device)))
    if outputs.predictions is not None:
        outputs.predictions.mkdir(parents=True, exist_ok=True)
        with whole_file(outputs.predictions / "joints.npy") as beside:
            np.save(beside, found.astype(np.float32))
    if outputs.picture is not None:
        shown = [(number, draw_keypoints(read_image(frames[number]), found[number])) for number in _shown(len(frames))]
        _save_strip(item, shown, outputs.picture)
    return {"frames": len(frames), "distances": normalised_distances(found, truth)}


def joint_positions(file: Path) -> np.ndarray:
    """Return the joints (T, 15, 2) of a video of JHMDB, x and y in pixels from 0.

    Raises:
        SampleError: The file cannot be read, or holds something else.
    """
    stored = read_mat_array(file, "pos_img")
    if stored.ndim == 2:  # MATLAB drops the last axis of a video of one frame
        stored = stored[..., None]
    if stored.ndim != 3 or stored.shape[:2] != (2, JHMDB_JOINTS):
        raise SampleError(str(file), f"pos_img must be (2, {JHMDB_JOINTS}, T), it is {stored.shape}", always=True)
    return stored.transpose(2, 1, 0) - 1


def _pooled_parts(states: Sequence[State]) -> Any:
    meter = SegmentationMeter(VIP_CLASSES)
    for state in states:
        meter.merge(state["state"])
    return meter.result()


def _pooled_joints(states: Sequence[State]) -> Any:
    joints = range(JHMDB_JOINTS)
    return pose_scores([[away for state in states for away in state["distances"][joint]] for joint in joints])


MEASUREMENTS: dict[str, Measurement] = {
    "davis": Measurement(measure_objects, lambda states: davis_scores([o for s in states for o in s["objects"]])),
    "vip": Measurement(measure_parts, _pooled_parts),
    "jhmdb": Measurement(measure_joints, _pooled_joints),
}


def _propagated(
    encoder: MeasuredEncoder,
    item: LabelledSequence,
    first: np.ndarray,
    protocol: PropagationProtocol,
    outputs: Outputs,
) -> Any:
    """Yield number and label map of every frame, keeping what is to be kept."""
    shown, drawn = _shown(len(item.frames)), []
    if outputs.predictions is not None:
        outputs.predictions.mkdir(parents=True, exist_ok=True)
    for number, labels in enumerate(
        propagate_labels(encoder.encode, item.frames, first, protocol, device=encoder.device)
    ):
        if outputs.predictions is not None:
            label_map(labels, object_palette()).save(outputs.predictions / f"{item.frames[number].stem}.png")
        if outputs.picture is not None and number in shown:
            drawn.append((number, overlay_objects(read_image(item.frames[number]), labels)))
        yield number, labels
    if outputs.picture is not None:
        _save_strip(item, drawn, outputs.picture)


def _shown(frames: int) -> list[int]:
    return sorted({0, frames // 2, frames - 1})


def _save_strip(item: LabelledSequence, drawn: Sequence[tuple[int, Image.Image]], file: Path) -> None:
    strip([(f"{item.name}, frame {number}", picture) for number, picture in drawn]).save(file)
