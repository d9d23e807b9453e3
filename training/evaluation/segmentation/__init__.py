"""Semantic segmentation against ground truth."""
