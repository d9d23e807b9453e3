"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference material; a clone without it skips the tests that read it."""
    if not SHARED.is_dir():
        pytest.skip("the shared reference material is not beside this clone")
    return SHARED


@pytest.fixture(scope="session")
def sample_videos(shared: Path) -> Path:
    """Real videos of several codecs, some of them broken on purpose."""
    return shared / "data" / "videos"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
