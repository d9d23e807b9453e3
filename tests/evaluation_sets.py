"""Data sets of a few items in memory, for the tests of evaluation."""

from __future__ import annotations

import numpy as np

from midway_hub.training.data.flow.sample import FlowSample
from midway_hub.training.data.segmentation.sample import LabelledImage


class InMemory:
    """A flow or segmentation data set of given samples, which counts how often each was read."""

    sparse = False

    def __init__(self, samples, *, name="in/memory", classes=(), missing=()):
        self.samples, self.name, self.lacks = list(samples), name, list(missing)
        self.classes = tuple(classes)
        self.palette = tuple((37 * n % 256, 91 * n % 256, 151 * n % 256) for n in range(len(classes)))
        self.reads = [0] * len(self.samples)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.samples[index]

    def missing(self):
        return self.lacks

    def fingerprint(self):
        return {"name": self.name, "pairs": len(self), "files": "0123"}


def flow_sample(flow, *, valid=None, occluded=None, scale=1, name="one", sequence=""):
    """A pair of grey frames with the given flow (H·scale, W·scale, 2)."""
    flow = np.asarray(flow, dtype=np.float32)
    height, width = flow.shape[0] // scale, flow.shape[1] // scale
    frame = np.full((height, width, 3), 128, dtype=np.uint8)
    valid = np.ones(flow.shape[:2], dtype=bool) if valid is None else valid
    return FlowSample(frame, frame, flow, valid, name, sequence, occluded, scale)


def shifted_pairs(count=3, *, shift=(3, -2), size=(48, 64)):
    """Smooth noise that moves by `shift` (x, y) pixels; sequences `even` and `odd` by turns."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(count):
        coarse = generator.integers(0, 256, (24, 24, 3)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
        top, left = 12, 12
        first = coarse[top : top + size[0], left : left + size[1]]
        second = coarse[top - shift[1] :, left - shift[0] :][: size[0], : size[1]]
        flow = np.broadcast_to(np.float32(shift), (*size, 2)).copy()
        samples.append(
            FlowSample(first, second, flow, np.ones(size, bool), f"pair {number}", ("even", "odd")[number % 2])
        )
    return samples


def labelled_pictures(count=3, *, classes=3, size=(40, 56)):
    """Noise whose labels are drawn at random, a tenth of them 255."""
    generator = np.random.default_rng(0)
    samples = []
    for number in range(count):
        labels = generator.integers(0, classes, size).astype(np.uint8)
        labels[generator.random(size) < 0.1] = 255
        image = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
        samples.append(LabelledImage(image, labels, f"picture {number}"))
    return samples
