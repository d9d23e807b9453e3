#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0: AutoBackbone.from_pretrained cannot open a local folder without the Hub, though
# the backbone's own class can: it asks the Hub whether a repository of that name exists, to tell timm's models apart.
# Seen: ConvNextBackbone.from_pretrained("backbone") loads, AutoBackbone.from_pretrained raises with HF_HUB_OFFLINE=1.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
cd "$work" && HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import transformers
from transformers import AutoBackbone, ConvNextBackbone, ConvNextConfig

small = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage4"])
ConvNextBackbone(small).save_pretrained("backbone")
print("own class:", type(ConvNextBackbone.from_pretrained("backbone")).__name__)
try:
    AutoBackbone.from_pretrained("./backbone")
except Exception as error:
    print(transformers.__version__, type(error).__name__, str(error)[:200])
else:
    raise SystemExit("it loaded: the behaviour has changed")
PY
