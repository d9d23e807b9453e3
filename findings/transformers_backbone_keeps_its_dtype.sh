#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0: a UperNet made from the configuration of a backbone that was saved in half
# precision has a half-precision backbone under a float32 head, and stops with "should be the same" at the first frame.
# `AutoBackbone.from_config` takes the dtype that the backbone's configuration names; the head takes the default one.
# Seen: backbone torch.float16, head torch.float32, RuntimeError. With `backbone_config.dtype = None` it runs.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
cd "$work" && HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import ConvNextBackbone, ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

small = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "out_features": ["stage1", "stage2", "stage3", "stage4"]}
ConvNextBackbone(ConvNextConfig(**small)).half().save_pretrained("backbone")


def segmenter(config):
    whole = UperNetConfig(backbone_config=config, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False)
    return UperNetForSemanticSegmentation(whole).eval()


model = segmenter(ConvNextConfig.from_pretrained("backbone"))
precisions = [next(part.parameters()).dtype for part in (model.backbone, model.decode_head)]
print(transformers.__version__, "backbone and head:", precisions)
assert precisions == [torch.float16, torch.float32]
try:
    model(torch.zeros(1, 3, 64, 64))
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise SystemExit("it ran: the behaviour has changed")
config = ConvNextConfig.from_pretrained("backbone")
config.dtype = None
print("without it:", segmenter(config)(torch.zeros(1, 3, 64, 64)).logits.shape)
PY
