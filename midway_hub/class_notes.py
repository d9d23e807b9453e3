"""What must be said of classes before they are shown over real frames."""

from __future__ import annotations

from collections.abc import Sequence

WORLD_PLANES = ("background", "ground", "wall")
WORLD_SHAPES = ("ellipse", "box", "triangle", "star", "ring", "blob")
WORLD_CLASSES = (*WORLD_PLANES, *WORLD_SHAPES)
"""Classes of the synthetic worlds: the planes and flat shapes that a computer puts a scene together from."""

WORLD_HEADING = "classes of synthetic worlds"


def are_of_worlds(classes: Sequence[str]) -> bool:
    """Return whether these are the classes of the synthetic worlds, which no real scene has."""
    return tuple(classes) == WORLD_CLASSES


def classes_note(classes: Sequence[str]) -> str | None:
    """Return what users must know of classes before they read anything into them; None: nothing."""
    if not are_of_worlds(classes):
        return None
    return (
        f"These are the classes of synthetic worlds: planes ({', '.join(WORLD_PLANES)}) and flat shapes "
        f"({', '.join(WORLD_SHAPES)}) that a computer puts scenes together from. The model was taught no class of real "
        "scenes: over a street they say what looks alike to it, not what it is."
    )
