"""A network without its gating units: what they do to the predictions, all else being equal."""

from __future__ import annotations

import copy

from midway_hub.models.network import MidwayNetwork


def without_gates(net: MidwayNetwork) -> MidwayNetwork:
    """Return a network that computes with the same weights, but whose forward predictors have no gating units.

    Every gate counts as 1, in the predictions and in all that is computed from them: the motion of finer levels.

    Args:
        net: A network with dynamics. It stays as it is and shares its weights' memory with the new one.

    Returns:
        The network that `config.gating = False` describes.

    Raises:
        ValueError: The network has no dynamics.
    """
    if not net.config.dynamics:
        raise ValueError("the network is an encoder alone; gating units belong to dynamics")
    config = copy.deepcopy(net.config)
    config.gating = False
    ungated = MidwayNetwork(config)
    kept = {
        key: value for key, value in net.state_dict().items() if not (key.startswith("dynamics.") and ".gates." in key)
    }
    ungated.load_state_dict(kept, assign=True)
    ungated.image_processor = net.image_processor
    return ungated.requires_grad_(False).train(net.training)
