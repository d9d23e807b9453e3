"""AdamW as the paper uses it: four named groups, decay on matrices, every gradient tensor clipped on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

OWNERS = ("student", "dynamics")


def parameter_groups(network: nn.Module) -> list[dict]:
    """Sort the trainable parameters of a pretraining network into named groups for an optimizer.

    Parameters of two or more dimensions are matrices, tokens and position embeddings included: they decay. Others are
    vectors and never do.

    Args:
        network: Its frozen parameters, the moving averages, are left out.

    Returns:
        Of `student_matrices`, `student_vectors`, `dynamics_matrices`, `dynamics_vectors` those that are not empty, each
        with `name`, `params`, and a `weight_decay` of 0.
    """
    groups: dict[str, list[nn.Parameter]] = {
        f"{owner}_{kind}": [] for owner in OWNERS for kind in ("matrices", "vectors")
    }
    for owner, parameter in owned_parameters(network):
        groups[f"{owner}_{'matrices' if parameter.ndim >= 2 else 'vectors'}"].append(parameter)
    return [{"name": name, "params": params, "weight_decay": 0.0} for name, params in groups.items() if params]


def owned_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the trainable parameters with their owner: `dynamics` by their name, all else (encoder, head) `student`."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            yield ("dynamics" if "dynamics" in name.split(".") else "student"), parameter


@torch.no_grad()
def clip_per_tensor(gradients: Sequence[Tensor], maximum: float | None) -> dict[str, Tensor]:
    """Scale every gradient down to a norm of at most `maximum`, each on its own, without waiting for the device.

    Args:
        gradients: Changed in place.
        maximum: Largest norm allowed; None measures only.

    Returns:
        `norm` of all gradients together, before; `clipped`, the share of tensors that were scaled down.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    measured = {"norm": torch.linalg.vector_norm(norms)}
    if maximum is not None:
        torch._foreach_mul_(gradients, list((maximum / (norms + 1e-6)).clamp(max=1.0).unbind()))
        measured["clipped"] = (norms > maximum).float().mean()
    return measured
