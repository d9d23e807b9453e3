"""Optical flow against ground truth."""
