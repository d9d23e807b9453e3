"""The views a network sees of a clip: drawn once per sample, cut and coloured on a CPU or batched on a device."""

from midway_hub.training.data.needs import ColourRecipe
from midway_hub.training.data.views.apply import apply_views
from midway_hub.training.data.views.batched import apply_views_batched
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw, draw_views
from midway_hub.training.data.views.normalise import normalise, normalise_views
from midway_hub.training.data.views.picture import contact_sheet
from midway_hub.training.data.views.settings import DinoViews, ViewSettings

__all__ = [
    "ColourDraw",
    "ColourRecipe",
    "CropDraw",
    "DinoViews",
    "ViewDraw",
    "ViewSettings",
    "apply_views",
    "apply_views_batched",
    "contact_sheet",
    "draw_views",
    "normalise",
    "normalise_views",
]
