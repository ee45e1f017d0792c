"""What other systems read the outputs with: Kafka Connect into PostgreSQL, and Kafka Streams."""

import os
from pathlib import Path

import pytest

from tests.live.jars import fetch_jars

_POM = Path(__file__).with_name("pom.xml")


def needed(part: Path | str) -> Path:
    """Where a part of a test is. Without it the test is skipped; under CI that is a failure."""
    if isinstance(part, Path):
        return part
    if os.environ.get("CI"):
        pytest.fail(f"CI needs it: {part}")
    pytest.skip(part)


def needed_readers() -> Path:
    """The jars of Kafka Connect with its sink, and of Kafka Streams."""
    return needed(fetch_jars(_POM, "readers"))
