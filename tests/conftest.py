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


TINY = {
    "embed_dim": 48,
    "depth": 12,
    "num_heads": 4,
    "motion_dim": 24,
    "midway_heads": 3,
    "backward_heads": 4,
    "predictor_heads": 4,
    "image_size": 64,
}


@pytest.fixture
def tiny_net():
    """A random network small enough for any test, with a student and a teacher that differ."""
    return make_tiny_net()


def make_tiny_net(**changes):
    """Build a tiny network whose every weight is random, zero-initialised ones and EMA copies included."""
    from midway_hub import MidwayConfig, MidwayNetwork

    torch.manual_seed(0)
    net = MidwayNetwork(MidwayConfig(**{**TINY, **changes}))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()
