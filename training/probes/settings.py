"""Which quick measurements are taken during training, how often and on how much."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from midway_hub.training.settings import Settings


class ProbeSettings(Settings):
    """Measurements while training, on worlds and images that training never sees."""

    every_steps: int = Field(default=0, ge=0)
    """Optimizer steps between two measurements; 0: none but those asked for by hand."""

    worlds: int = Field(default=32, ge=2)
    """Held-out synthetic worlds that are rendered once, in the training data's kind where that is synthetic."""

    size: int = Field(default=224, ge=32)
    """Longest side in pixels that held-out worlds are cropped to, around their centre, in whole patches."""

    batch_size: int = Field(default=16, ge=1)
    """Frame pairs that pass through the network at once."""

    coarse_flow: bool = True
    """End-point error of coarse flow: zero motion, feature matching, perturbation peaks of every level."""

    perturbation_worlds: int = Field(default=8, ge=0)
    """Of the held-out worlds, how many perturbation peaks are measured on; they cost the most."""

    perturbation_draws: int = Field(default=4, ge=1)
    """Random directions per patch."""

    prediction: bool = True
    """Error of the dense prediction per level, beside that of predicting no change."""

    dense: bool = True
    """k-NN and linear read-out of what is where, from frozen patch features."""

    neighbours: int = Field(default=10, ge=1)
    """k of the k-NN read-out."""

    images: Path | None = None
    """Folder of labelled images for the dense read-outs; default: the held-out worlds."""

    labels: Path | None = None
    """Folder of their label maps: single-channel PNGs of the same names, 255 where nothing is labelled."""

    rank: bool = True
    """Effective rank of CLS and patch features: falls towards 1 when features collapse."""

    @model_validator(mode="after")
    def _both_folders_or_none(self) -> ProbeSettings:
        if (self.images is None) != (self.labels is None):
            raise ValueError(
                f"images and labels go together, got images={self.images} and labels={self.labels}; give both or none"
            )
        return self
