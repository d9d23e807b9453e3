"""The page as a Hugging Face Space: open to everyone, so users choose among the registry's models only."""

import os

from midway_hub.app.options import PageOptions
from midway_hub.app.server import serve
from midway_hub.app.uploads import Limits
from midway_hub.extraction import choose_device
from midway_hub.registry import DEFAULT_MODEL

if __name__ == "__main__":
    serve(
        PageOptions(
            model=os.environ.get("MIDWAY_MODEL", DEFAULT_MODEL),
            device=choose_device(None),
            any_model=False,
            limits=Limits(megabytes=50, seconds=20),
        ),
        host="0.0.0.0",
        port=int(os.environ.get("PORT", "7860")),
    )
