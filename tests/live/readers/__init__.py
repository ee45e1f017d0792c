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


def java(jars: Path, home: Path) -> tuple[str, ...]:
    """Java with these jars. Libraries that it unpacks go into `home`: where it is killed it leaves them."""
    quick_start = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    return ("java", *quick_start, f"-Djava.io.tmpdir={home}", "-cp", f"{jars}/*")
