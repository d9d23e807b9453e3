"""What a run will cost on this data and this machine, and which change helps most."""

from midway_hub.training.doctor.diagnosis import Change, Diagnosis, diagnose
from midway_hub.training.doctor.examine import Examination, examine
from midway_hub.training.doctor.forecast import Forecast, Measured, RunPlan, forecast
from midway_hub.training.doctor.machine import Machine, describe_machine
from midway_hub.training.doctor.measure import (
    NothingToMeasureError,
    measure_augmentation,
    measure_batched_augmentation,
    measure_packed_reading,
    measure_readers,
    measure_reading,
    views_of,
)
from midway_hub.training.doctor.step import StepCost, measure_step
from midway_hub.training.doctor.summary import summarise

__all__ = [
    "Change",
    "Diagnosis",
    "Examination",
    "Forecast",
    "Machine",
    "Measured",
    "NothingToMeasureError",
    "RunPlan",
    "StepCost",
    "describe_machine",
    "diagnose",
    "examine",
    "forecast",
    "measure_augmentation",
    "measure_batched_augmentation",
    "measure_packed_reading",
    "measure_readers",
    "measure_reading",
    "measure_step",
    "summarise",
    "views_of",
]
