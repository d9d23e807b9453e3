"""Pretraining methods, one file each. What is imported here is registered."""

from midway_hub.training.methods.base import HubMethod, Method
from midway_hub.training.methods.cmp import Cmp
from midway_hub.training.methods.croco import Croco
from midway_hub.training.methods.densecl import Densecl
from midway_hub.training.methods.dino import Dino, DinoSettings
from midway_hub.training.methods.dora import Dora
from midway_hub.training.methods.dynamo import Dynamo, DynamoWindow
from midway_hub.training.methods.flowe import Flowe
from midway_hub.training.methods.midway import Midway, MidwaySettings
from midway_hub.training.methods.optimisation import MethodSettings
from midway_hub.training.methods.poodle import Poodle
from midway_hub.training.methods.registry import METHODS, make_method, method_class, register
from midway_hub.training.methods.tcore import Tcore
from midway_hub.training.methods.tdv import Tdv

__all__ = [
    "METHODS",
    "Cmp",
    "Croco",
    "Densecl",
    "Dino",
    "DinoSettings",
    "Dora",
    "Dynamo",
    "DynamoWindow",
    "Flowe",
    "HubMethod",
    "Method",
    "MethodSettings",
    "Midway",
    "MidwaySettings",
    "Poodle",
    "Tcore",
    "Tdv",
    "make_method",
    "method_class",
    "register",
]
