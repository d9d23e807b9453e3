"""What the heads share: they draw their own initial weights instead of the network's."""

from __future__ import annotations

from torch import nn


class Head(nn.Module):
    """Base of the heads; a head starts from torch's default weights unless it overrides `initialise_module`."""

    def initialise(self) -> None:
        """Draw the weights of every module of the head."""
        for module in self.modules():
            self.initialise_module(module)

    def initialise_module(self, module: nn.Module) -> None:
        """Draw the weights of one module of the head, without those of the modules in it."""
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    def holds(self, module: nn.Module) -> bool:
        """Whether `module` is a part of this head."""
        return any(module is part for part in self.modules())
