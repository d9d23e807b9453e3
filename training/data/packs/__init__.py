"""Packs: videos turned into what reads many times cheaper, written, verified and read."""

from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.forecast import Forecast
from midway_hub.training.data.packs.packing import PackProgress, PackReport, forecast, pack
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.training.data.packs.source import PackSource
from midway_hub.training.data.packs.verification import VerifyReport, verify

__all__ = [
    "Forecast",
    "PackError",
    "PackProgress",
    "PackReport",
    "PackSettings",
    "PackSource",
    "VerifyReport",
    "forecast",
    "pack",
    "verify",
]
