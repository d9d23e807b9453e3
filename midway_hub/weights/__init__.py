"""Checkpoints that ship inside the package, one folder per registry name."""
