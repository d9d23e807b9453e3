#!/usr/bin/env bash
# Pillow 12.3.0 and OpenCV 4.12.0: label maps saved as grey PNG of 4 or 2 bits (pypng, MATLAB, GDAL with NBITS) come
# back with other numbers. Both libraries stretch the samples to 8 bits, Pillow by 17 and 85; class 3 of a 2-bit map is
# 255, which most data sets take for "ignore". Palette PNGs of as few bits keep theirs.
# Seen: grey 4 bits 0 1 2 3 -> 0 17 34 51, 2 bits -> 0 85 170 255, palette 2 bits -> 0 1 2 3. Fails if that changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 pypng==0.20220715.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
cd "$work" && "$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import png
from PIL import Image

labels = [[0, 1, 2, 3]] * 4
for bits, wanted in ((4, [0, 17, 34, 51]), (2, [0, 85, 170, 255])):
    png.from_array(labels, f"L;{bits}").save(f"grey{bits}.png")
    seen = {
        "Pillow": np.array(Image.open(f"grey{bits}.png"))[0].tolist(),
        "OpenCV": cv2.imread(f"grey{bits}.png", cv2.IMREAD_UNCHANGED)[0].tolist(),
    }
    print(f"grey, {bits} bits: stored {labels[0]}", seen)
    assert seen == {"Pillow": wanted, "OpenCV": wanted}, seen
with open("palette.png", "wb") as file:
    png.Writer(4, 4, palette=[(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], bitdepth=2).write(file, labels)
seen = np.array(Image.open("palette.png"))[0].tolist()
print("palette, 2 bits:", seen)
assert seen == labels[0]
PY
