"""How well motion is read off a network without any head: one displacement per patch, against ground truth."""
