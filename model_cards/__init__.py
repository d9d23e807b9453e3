"""Model cards, one per registered checkpoint: written by `python -m midway_hub.cards --write`."""
