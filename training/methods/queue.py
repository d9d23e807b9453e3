"""A queue of keys that many steps fill, first in, first out (He et al. 2020, section 3.2)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The last keys of all processes, the same in each; they start as unit vectors of noise.

    Args:
        length: Keys.
        width: Numbers of a key.
    """

    keys: Tensor
    next: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(length, width), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))
        self._gathered: list[Tensor] = []

    @torch.no_grad()
    def gather(self, keys: Tensor) -> None:
        """Remember keys (n, width) of a micro-batch until the step is done."""
        self._gathered.append(keys.detach().to(self.keys.dtype))

    @torch.no_grad()
    def push(self) -> None:
        """Let this step's keys take the places of the oldest: micro-batch by micro-batch, in each all processes'.

        Raises:
            ValueError: The length is not a multiple of them.
        """
        if not self._gathered:
            return
        keys = torch.cat([_of_all(part) for part in self._gathered])
        self.forget()
        if len(self.keys) % len(keys):
            raise ValueError(
                f"a queue of {len(self.keys)} keys cannot be filled by {len(keys)} at a time; make it a multiple"
            )
        places = (self.next + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[places] = keys
        self.next.copy_((self.next + len(keys)) % len(self.keys))

    def forget(self) -> None:
        """Drop what was gathered since the last step."""
        self._gathered.clear()


def _of_all(keys: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return keys
    found = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
    dist.all_gather(found, keys.contiguous())
    return torch.cat(found)
