"""Pretraining methods, one file each."""

from midway_hub.training.methods.base import HubMethod, Method
from midway_hub.training.methods.dino import Dino, DinoSettings
from midway_hub.training.methods.midway import Midway, MidwaySettings
from midway_hub.training.methods.optimisation import MethodSettings
from midway_hub.training.methods.registry import METHODS, make_method, method_class, register

__all__ = [
    "METHODS",
    "Dino",
    "DinoSettings",
    "HubMethod",
    "Method",
    "MethodSettings",
    "Midway",
    "MidwaySettings",
    "make_method",
    "method_class",
    "register",
]
