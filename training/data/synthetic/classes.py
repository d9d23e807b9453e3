"""The things of the synthetic world, which are also its segmentation classes."""

from __future__ import annotations

from midway_hub.class_notes import WORLD_CLASSES, WORLD_PLANES, WORLD_SHAPES

PLANES, SHAPES = WORLD_PLANES, WORLD_SHAPES
CLASSES = WORLD_CLASSES
"""Name of each label."""

PALETTE = (
    *((70, 130, 180), (107, 142, 35), (160, 82, 45)),
    *((220, 20, 60), (255, 200, 0), (0, 160, 120), (255, 120, 0), (150, 60, 200), (240, 110, 190)),
)
"""RGB colour of each label."""

MAX_OBJECTS = 29
"""Most objects of a world: with the three planes they fill the five bits that a layer's number has."""
