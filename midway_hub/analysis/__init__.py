"""What the network's features say about motion: pictures and numbers made from a `MidwayNetwork`."""
