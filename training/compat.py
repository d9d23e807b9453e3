"""What released code does otherwise than its paper says, each a switch: on where weights were made so, else off."""

from __future__ import annotations

from midway_hub.training.settings import Settings


class Oddities(Settings):
    """The `compat` section: what loop and data of a released recipe do otherwise. A method adds its own."""

    sampler_repeats_order: bool = False
    """The sampler is never told the epoch: files come in the same order in every pass."""

    lr_counts_repeats: bool = False
    """The learning rate is scaled as if every visit gave five pairs, also where it gives one."""

    epochs_advance_by_repeats: bool = False
    """The epoch counter moves by the number of pairs per visit, once in every pass over the files. The frozen last
    layer and the logged epoch follow it; schedules are linear in the step all the same."""

    same_seed_on_every_rank: bool = False
    """Every process draws the same random numbers: for the frames of its pairs, for their views, for drop path."""

    def switched_on(self) -> list[str]:
        """Return the names of the switches that are on."""
        return [name for name in type(self).model_fields if getattr(self, name)]


class Compat(Oddities):
    """What the released code of Midway and its two-frame DINO does. Weights that the authors released were made so."""

    teacher_momentum_over_samples: bool = False
    """The teacher momentum's cosine has one entry per sample but is read per step, so it hardly leaves its start."""

    weight_decay_first_group_only: bool = False
    """The weight-decay schedule reaches the student's matrices alone; the dynamics' keep AdamW's default of 0.01."""

    warmup_ends_at_peak: bool = False
    """The warm-up's table of W entries has both ends in it: its last entry is at the peak, one before the cosine starts
    there, so that the rate rises by 1/(W - 1) of the peak at a time."""

    clip_student_only: bool = False
    """Gradients of encoder and head are clipped, per tensor; those of the dynamics are not clipped."""
