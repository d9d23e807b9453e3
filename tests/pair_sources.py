"""Sources of frame pairs that are made up, some of whose items cannot be read; they travel to worker processes."""

import os
import signal
import subprocess

import numpy as np
import torch

from midway_hub.training.data.clip import Clip, SampleError


class MadeUpSource:
    """Frames of noise drawn from the generator handed in.

    Args:
        items: How many items there are.
        bad: Items that can never be read.
        shaky: Items of which half of the draws cannot be read.
        sizes: Height and width of the frames, item by item in turn.
    """

    def __init__(self, items=8, *, bad=(), shaky=(), sizes=((24, 32),)):
        self.items, self.bad, self.shaky, self.sizes = items, set(bad), set(shaky), sizes
        self.opened = []

    def __len__(self):
        return self.items

    def clips(self, index, count, generator):
        self.opened.append(index)
        if index in self.bad:
            raise SampleError(f"{index}.mp4", "no index", always=True)
        if index in self.shaky and generator.integers(2):
            raise SampleError(f"{index}.mp4", "a frame is damaged")
        height, width = self.sizes[index % len(self.sizes)]
        return [
            self.pair(index, generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8)) for _ in range(count)
        ]

    def pair(self, index, frames):
        return Clip.of_pair(frames[0], frames[1], self.name(index), (0, 1), 0.5)

    def name(self, index):
        return f"{index}.mp4"

    def fingerprint(self):
        return {"kind": "made up", "items": self.items}


class GreySource(MadeUpSource):
    """The same ramp in every frame, so that views differ by what was drawn for them alone."""

    def pair(self, index, frames):
        ramp = np.linspace(0, 255, frames[0].size, dtype=np.uint8).reshape(frames[0].shape)
        return super().pair(index, np.stack([ramp, ramp]))


class ProcessSource(MadeUpSource):
    """Calls its pairs by the process and the number of threads that made them."""

    def name(self, index):
        return f"{os.getpid()} {torch.get_num_threads()}"


class KilledSource(MadeUpSource):
    """The process that reads item 3 is killed, as by a system out of memory."""

    def clips(self, index, count, generator):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().clips(index, count, generator)


class TerminatedSource(MadeUpSource):
    """Every reading process is sent signals by a stranger."""

    def clips(self, index, count, generator):
        for name in ("TERM", "INT"):
            subprocess.run(["kill", f"-{name}", str(os.getpid())], check=True)
        return super().clips(index, count, generator)


class FaultySource(MadeUpSource):
    """A source with a programming error."""

    def clips(self, index, count, generator):
        raise KeyError("no such thing")
