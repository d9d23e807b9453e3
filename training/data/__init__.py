"""Frame pairs for training: videos, packs and synthetic worlds, and the views made of them."""
