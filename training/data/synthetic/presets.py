"""Worlds that are easier than the default, as values."""

from __future__ import annotations

from midway_hub.training.data.synthetic.settings import EffectSettings, MotionSettings, WorldSettings

STILL = MotionSettings(
    camera_shift=0, camera_forward=0, camera_turn=0, camera_roll=0, camera_zoom=0, object_shift=0, object_turn=0,
    object_scale=0,
)  # fmt: skip
"""Nothing moves."""

CLEAR = EffectSettings(shading=0, blur_probability=0, lighting_probability=0, noise_probability=0)
"""Nothing between the world and its frames."""

SHIFT_ONLY = WorldSettings(
    size=(64, 64),
    objects=(0, 0),
    ground_probability=0,
    wall_probability=0,
    tilt=0,
    motion=STILL.model_copy(update={"displacement": (0.6, 0.6), "background_shift": 0.375, "snap": 16}),
    effects=CLEAR,
)
"""One textured plane that moves by whole patches: the easiest world there is."""
