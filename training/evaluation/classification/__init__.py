"""What frozen features of whole pictures are worth: k nearest neighbours and a linear classifier."""
