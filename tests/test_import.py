import subprocess
import sys

import pytest

import midway_hub


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_brings_in_nothing_heavy():
    heavy = ("torch", "numpy", "transformers", "timm", "torchvision", "requests", "av", "decord", "PIL")
    assert run(f"import sys, midway_hub; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_listing_models_needs_neither_torch_nor_transformers():
    heavy = ("torch", "transformers")
    code = f"import sys, midway_hub; midway_hub.list_models(); print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("name", [name for name in midway_hub.__all__ if name != "__version__"])
def test_every_public_name_loads_and_is_documented(name):
    assert getattr(midway_hub, name).__doc__
    assert name in dir(midway_hub)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'midway_hub' has no attribute 'Midway'"):
        midway_hub.Midway  # noqa: B018
