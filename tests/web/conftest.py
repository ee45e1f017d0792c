"""What tests of the ports share."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from consumer.settings import Settings
from consumer.telemetry import logs


@pytest.fixture
def log() -> Iterator[Callable[[], list[Any]]]:
    """The service's own lines about the query port so far."""
    stream = io.StringIO()
    logs.configure(Settings(bootstrap_servers="x"), stream)
    yield lambda: [
        line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"].startswith("query.")
    ]
    structlog.reset_defaults()
