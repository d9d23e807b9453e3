#!/usr/bin/env bash
# PyYAML 6.0.3 and OmegaConf 2.3.0: a recipe's `lr: 2e-2` is text to one and a number to the other.
# PyYAML follows YAML 1.1, whose floats need a dot; OmegaConf, which reads the same files through a loader derived from
# PyYAML's, and its dotted command-line overrides, adds the form without a dot. A value that is valid as an override is
# a string when a tool reads the file by yaml.safe_load. Both read 012 as 10.
# Seen: PyYAML '2e-2' (str), OmegaConf 0.02 (float), 012 -> 10 in both. Fails if that changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyyaml==6.0.3 omegaconf==2.3.0
"$work/venv/bin/python" - <<'PY'
import yaml
from omegaconf import OmegaConf

text = "lr: 2e-2\nseed: 012\n"
plain, omega = yaml.safe_load(text), OmegaConf.to_container(OmegaConf.create(text))
override = OmegaConf.to_container(OmegaConf.from_dotlist(["lr=2e-2"]))
print("yaml.safe_load", plain, "OmegaConf.create", omega, "from_dotlist", override)
assert plain == {"lr": "2e-2", "seed": 10}
assert omega == {"lr": 0.02, "seed": 10}
assert override == {"lr": 0.02}
PY
