"""The Midway Network: encoder, dynamics, and the network that joins them."""
