"""What tests of commands share. The settings in the environment of the test run do not reach them."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from consumer.kafka.embedded import EmbeddedBroker
from consumer.settings import Settings


@contextmanager
def embedded(**settings: Any) -> Iterator[Settings]:
    """Settings for an embedded broker that has the topics."""
    with EmbeddedBroker() as broker:
        made = Settings(
            bootstrap_servers=broker.bootstrap_servers,
            delivery="at_least_once",
            commit_interval_ms=50,
            admin_port=0,
            query_port=0,
            **settings,
        )
        broker.create_topics(made.topics)
        yield made


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address that refuses connections while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
