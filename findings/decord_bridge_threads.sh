#!/usr/bin/env bash
# decord 0.6.0 (numpy 1.26.4): a bridge set in the main thread does not reach the threads that read videos.
# `decord.bridge.set_bridge` writes a thread-local value; its global default is assigned without `global` and never
# changes. A loader that reads in threads gets decord's own arrays there and another type in the main thread.
# Seen: a registered bridge gives its type (list) in the main thread and decord's NDArray in another. Fails if that
# changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check decord==0.6.0 numpy==1.26.4 av==15.1.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import threading
from fractions import Fraction

import av
import decord
import numpy as np
from decord import bridge

with av.open("clip.mp4", "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(4):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())

bridge._BRIDGE_TYPES["list"] = (lambda array: array.asnumpy().tolist(), lambda value: value)
bridge.set_bridge("list")  # stands for "torch", which needs torch


def kind() -> str:
    return type(decord.VideoReader("clip.mp4").get_batch([0])).__name__


seen = {"main": kind()}
thread = threading.Thread(target=lambda: seen.update(other=kind()))
thread.start(), thread.join()
print(decord.__version__, seen)
assert seen == {"main": "list", "other": "NDArray"}, seen
PY
