"""What `python -m midway_hub.training` offers, a file per kind of command."""
