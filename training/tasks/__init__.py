"""Supervised tasks on the engine: optical flow and semantic segmentation, finetuned or read out."""
