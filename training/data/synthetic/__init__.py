"""A synthetic world made on the fly: textured flat layers, a moving camera, and the exact truth about both."""

from midway_hub.training.data.synthetic.classes import CLASSES, PALETTE
from midway_hub.training.data.synthetic.draws import held_out_seeds
from midway_hub.training.data.synthetic.picture import world_sheet
from midway_hub.training.data.synthetic.presets import CLEAR, SHIFT_ONLY, STILL
from midway_hub.training.data.synthetic.settings import (
    EffectSettings,
    MotionSettings,
    TextureSettings,
    WorldSettings,
)
from midway_hub.training.data.synthetic.source import WorldSource
from midway_hub.training.data.synthetic.worlds import (
    WorldClip,
    WorldMoments,
    WorldPairs,
    render_clip,
    render_moments,
    render_pairs,
)

__all__ = [
    "CLASSES",
    "CLEAR",
    "PALETTE",
    "SHIFT_ONLY",
    "STILL",
    "EffectSettings",
    "MotionSettings",
    "TextureSettings",
    "WorldClip",
    "WorldMoments",
    "WorldPairs",
    "WorldSettings",
    "WorldSource",
    "held_out_seeds",
    "render_clip",
    "render_moments",
    "render_pairs",
    "world_sheet",
]
