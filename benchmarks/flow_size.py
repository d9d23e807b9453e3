"""At which size a flow head sees best: the error of known shifts of a camera, by the short side of the frames.

    python benchmarks/flow_size.py [--model midway_pico] [--sizes 64 96 128 192 256 384 720] [IMAGE ...]

A picture of 720 lines and itself, moved by some pixels: the median error in pixels of the default windows at each size.
What `midway-hub flow`, the page and the demo take by default is marked, and so are sizes that a shift is out of reach
at, by the note that the command gives. Without IMAGE, the first frame of the bundled clip.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from midway_hub import MidwayNetwork
from midway_hub.app.demo import read_clip, sample_clip
from midway_hub.dense import clip_flow
from midway_hub.dense.reach import flow_size

SHIFTS = (3, 6, 12, 24, 48, 96)
LINES = 720


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="*", help="pictures; default: a frame of the bundled clip")
    parser.add_argument("--model", default="midway_pico", help="a checkpoint with a flow head")
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 96, 128, 160, 192, 256, 384, LINES))
    args = parser.parse_args()
    torch.manual_seed(0)
    net = MidwayNetwork.from_pretrained(args.model)
    pictures = [Image.open(path).convert("RGB") for path in args.images] or [read_clip(sample_clip(), 2)[0].frames[0]]
    pictures = [picture.resize((round(picture.width * LINES / picture.height), LINES)) for picture in pictures]
    default = flow_size(net, (pictures[0].height, pictures[0].width))
    print(f"{'size':>8}", *(f"{shift:>7} px" for shift in SHIFTS), f"{'mean of errors':>16}")
    for size in args.sizes:
        errors, marks = zip(*(error_of(net, pictures, shift, size) for shift in SHIFTS), strict=True)
        cells = (f"{error:9.1f}{'*' if beyond else ' '}" for error, beyond in zip(errors, marks, strict=True))
        print(
            f"{size:>8}", "".join(cells), f"{np.mean(errors):15.1f}", "  default" if size == default else "", flush=True
        )
    print("* noted as out of reach")


def error_of(net: MidwayNetwork, pictures: list[Image.Image], shift: int, size: int) -> tuple[float, bool]:
    """Median error in pixels over the pictures, and whether most of them are noted as out of reach."""
    errors, beyond = [], []
    for picture in pictures:
        width, height = picture.size
        pair = [picture.crop((shift, 0, width, height)), picture.crop((0, 0, width - shift, height))]
        (estimate,) = clip_flow(net, pair, size=size)
        seen = estimate.flow[:, : width - 2 * shift]
        errors.append(float(np.median(np.hypot(seen[..., 0] - shift, seen[..., 1]))))
        beyond.append(estimate.out_of_reach)
    return float(np.mean(errors)), float(np.mean(beyond)) > 0.5


if __name__ == "__main__":
    main()
