"""What is where, read out of frozen patch features: k-NN and a linear classifier, trained in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.outputs import TensorRecord
from midway_hub.training.probes.protocol import Readable
from midway_hub.training.probes.readout import classification_scores, knn_predict, linear_predict

IGNORED = 255
MAX_TRAINING_PATCHES = 20_000


@dataclass(frozen=True)
class LabelledFrames(TensorRecord):
    """Frames with a class for every pixel.

    Attributes:
        frames: (B, 3, H, W) float32, ImageNet-normalised; H and W whole patches.
        labels: (B, H, W) int64 from 0; 255 where nothing is labelled.
    """

    frames: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.frames)


class DenseProbe:
    """Patch classification from the teacher's last features; the first half of the frames trains, the rest tests.

    `dense/knn/accuracy`, `dense/knn/miou`, `dense/linear/...`, and `dense/majority/...` for always guessing the most
    frequent class of the training half. A patch's class is the most frequent one of its labelled pixels.

    Args:
        data: Labelled frames, at least 2.
        neighbours: k of the k-NN read-out.
        batch_size: Frames through the encoder at once.

    Raises:
        ValueError: Fewer than 2 frames.
    """

    def __init__(self, data: LabelledFrames, *, neighbours: int = 10, batch_size: int = 16) -> None:
        if len(data) < 2:
            raise ValueError(f"a dense read-out needs at least 2 labelled frames to train and test, got {len(data)}")
        self.data = data
        self.neighbours = neighbours
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, network: Readable) -> dict[str, float]:
        half = len(self.data) // 2
        train, train_labels = self._patches(network, slice(0, half))
        test, labels = self._patches(network, slice(half, None))
        step = len(train) // MAX_TRAINING_PATCHES + 1
        train, train_labels = train[::step], train_labels[::step]
        classes = int(torch.cat([train_labels, labels]).max()) + 1
        predictions = {
            "knn": knn_predict(train, train_labels, test, k=self.neighbours, classes=classes),
            "linear": linear_predict(train, train_labels, test, classes=classes),
            "majority": train_labels.mode().values.expand(len(labels)),
        }
        return {
            f"dense/{way}/{number}": value
            for way, predicted in predictions.items()
            for number, value in classification_scores(predicted, labels, classes=classes).items()
        }

    def _patches(self, network: Readable, part: slice) -> tuple[Tensor, Tensor]:
        """Features (n, D) and classes (n,) of the labelled patches of some frames."""
        chosen = self.data.map(lambda tensor: tensor[part])
        grids = [network.encode(frames.to(network.device)).last for frames in chosen.frames.split(self.batch_size)]
        features = torch.cat(grids).permute(0, 2, 3, 1).flatten(0, 2).float()
        labels = patch_labels(chosen.labels, network.config.patch_size).flatten().to(network.device)
        return features[labels != IGNORED], labels[labels != IGNORED]


def patch_labels(labels: Tensor, patch_size: int) -> Tensor:
    """Return the most frequent class of every patch's labelled pixels.

    Args:
        labels: (B, H, W) int64, 255 where nothing is labelled.
        patch_size: Side of a patch in pixels.

    Returns:
        (B, H / patch_size, W / patch_size) int64; 255 where no pixel of the patch is labelled. Of equally frequent
        classes, the lowest.
    """
    counts = torch.stack(
        [F.avg_pool2d((labels == label).float(), patch_size) for label in range(_classes(labels))], dim=1
    )
    share, most = counts.max(dim=1)
    return most.masked_fill(share == 0, IGNORED)


def _classes(labels: Tensor) -> int:
    known = labels[labels != IGNORED]
    if not known.numel():
        raise ValueError("no pixel is labelled: every label is 255; give labels from 0 to 254")
    return int(known.max()) + 1
