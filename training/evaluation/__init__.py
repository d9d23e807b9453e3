"""How good flow and segmentation are: metrics, published protocols, peers, records."""
