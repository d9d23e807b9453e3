"""Where a metric belongs on the page: its section, its plot, and what it is called there."""

from __future__ import annotations

import re

GROUPS = (  # the first pattern that fits a metric's whole name decides
    ("speed", r"(?:.*/)?(.*per_second|seconds.*|.*wait|.*memory.*)"),
    ("probes", r".+/.+"),
    ("schedules", r"(learning_rate|weight_decay|.*momentum|.*temperature|loss_scale).*"),
    ("clipped", r".*clip.*"),
    ("gradients", r".*grad.*"),
    ("dynamics", r".*(dynamics|copy_error).*"),
    ("teacher", r".*(kl|divergence).*"),
    ("dino", r".*(dino|entropy).*"),
    ("features", r".*(centre|spread|rank).*"),
    ("error", r"epe.*"),
    ("task", r"(flow|segmentation|auxiliary|accuracy)"),
    ("total", r".*loss.*"),
    ("others", r".*"),
)
SECTIONS = {
    "Losses": ("total", "dino", "dynamics", "teacher", "task", "error"),
    "Probes": ("probes",),
    "Features and gradients": ("features", "gradients", "clipped"),
    "Schedules": ("schedules",),
    "Speed and data wait": ("speed",),
    "Others": ("others",),
}
_TITLES = {
    "total": "Total",
    "dino": "DINO",
    "error": "End-point error",
    "gradients": "Gradient norms",
    "clipped": "Share of clipped gradients",
}


def group_of(name: str) -> str:
    """Return which group of metrics one belongs to."""
    return next(title for title, pattern in GROUPS if re.fullmatch(pattern, name, re.IGNORECASE))


def heading_of(group: str, name: str) -> str:
    """Title of the plot that a metric goes to."""
    if group == "dynamics":
        level = re.search(r"\d+", name)
        return f"Dynamics, level {level[0]}" if level else "Dynamics"
    if group in _TITLES:
        return _TITLES[group]
    words = _words(name)
    if group == "speed" and len(words) > 1:
        return "Probes: seconds"
    if group == "probes":  # all ways to get a number share a plot, baselines included
        words = [words[0], words[-1]] if len(words) > 1 else words
    return ": ".join(words).replace("_", " ")


def label_of(group: str, name: str) -> str:
    """Return what tells a metric apart from the others of its plot."""
    words = _words(name)
    if len(words) == 1:
        return name
    return "/".join(words[1:-1] if group == "probes" else words[:-1]) or words[-1]


def _words(name: str) -> list[str]:
    words = name.split("/")
    return words[1:] if len(words) > 2 and words[0] in ("probe", "probes") else words
