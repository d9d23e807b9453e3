"""The released recipe's oddities, each a switch: on in the paper's recipes, off by default."""

from __future__ import annotations

from midway_hub.training.settings import Settings


class Compat(Settings):
    """Where the released recipe does something else than it says. Weights that the authors released were made so."""

    teacher_momentum_over_samples: bool = False
    """The teacher momentum's cosine has one entry per sample but is read per step, so it hardly leaves its start."""

    weight_decay_first_group_only: bool = False
    """The weight-decay schedule reaches the student's matrices alone; the dynamics' keep AdamW's default of 0.01."""

    sampler_repeats_order: bool = False
    """The sampler is never told the epoch: files come in the same order in every pass."""

    lr_counts_repeats: bool = False
    """The learning rate is scaled as if every visit gave five pairs, also where it gives one."""

    epochs_advance_by_repeats: bool = False
    """The epoch counter moves by the number of pairs per visit in every pass over the files."""

    clip_student_only: bool = False
    """Gradients of encoder and head are clipped, per tensor; those of the dynamics are not clipped."""

    same_seed_on_every_rank: bool = False
    """Every process draws the same random numbers for its augmentation."""

    def switched_on(self) -> list[str]:
        """Return the names of the switches that are on."""
        return [name for name in type(self).model_fields if getattr(self, name)]
