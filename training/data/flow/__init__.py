"""Pairs of frames with ground-truth flow: data sets, mixtures of them, synthetic worlds, and their augmentation."""

from midway_hub.training.data.flow.augment import FlowAugment, augment_flow
from midway_hub.training.data.flow.check import FlowCheck, check_flow_datasets
from midway_hub.training.data.flow.datasets import FLOW_DATASETS, build_flow_dataset
from midway_hub.training.data.flow.mix import (
    ABLATION_MIX,
    PAPER_MIX,
    FlowMixSettings,
    FlowPart,
    MixedFlow,
    build_flow_mix,
)
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles, PairList
from midway_hub.training.data.flow.sample import FlowDataset, FlowSample
from midway_hub.training.data.flow.world import WorldFlow

__all__ = [
    "ABLATION_MIX",
    "FLOW_DATASETS",
    "PAPER_MIX",
    "FileForm",
    "FlowAugment",
    "FlowCheck",
    "FlowDataset",
    "FlowMixSettings",
    "FlowPart",
    "FlowSample",
    "MixedFlow",
    "PairFiles",
    "PairList",
    "WorldFlow",
    "augment_flow",
    "build_flow_dataset",
    "build_flow_mix",
    "check_flow_datasets",
]
