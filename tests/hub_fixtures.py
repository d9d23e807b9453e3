"""Fixtures of the tests that load from a Hub on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import Cache, Client
from hub_server import Hub, running_hub


@pytest.fixture(scope="session")
def shared_hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    shared_hub.__dict__.update({**Hub().__dict__, "url": shared_hub.url})
    return shared_hub


@pytest.fixture(scope="session")
def process(shared_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(shared_hub.url, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture
def cache(process: Client, tmp_path: Path) -> Iterator[Cache]:
    yield Cache(process, tmp_path / "cache")
    process.call("unregister")
