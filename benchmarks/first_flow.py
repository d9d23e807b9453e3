"""How long a newcomer waits for the first flow: a fresh process, beside one that imports torch and does nothing else.

    python benchmarks/first_flow.py

Loads the bundled checkpoint, decodes two frames of the bundled clip and estimates flow, as `midway-hub demo` does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

FLOW = """
from midway_hub import MidwayNetwork
from midway_hub.app.demo import read_clip, sample_clip
from midway_hub.dense import flow_between
net = MidwayNetwork.from_pretrained("midway_pico")
flow_between(net, read_clip(sample_clip(), 2)[1].frames)
"""


def seconds(code: str, repeats: int = 3) -> float:
    """Return the median time of a fresh process that runs the code."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    torch_alone, first_flow = seconds("import torch"), seconds(FLOW)
    print(f"import torch       {torch_alone:5.1f} s")
    print(f"load and flow      {first_flow:5.1f} s   {first_flow / torch_alone:.1f} times that")


if __name__ == "__main__":
    main()
