"""The tutorial, command by command, on a real Kafka: what it promises to show is what is printed."""

import re
import signal
from pathlib import Path

import pytest

from consumer.cli.exit_codes import OK
from tests.docs.pages import ROOT, calls, text_of
from tests.live.broker import KEEPS_MARKERS
from tests.live.commands import ended, environ_of
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline

pytestmark = pytest.mark.kafka

TUTORIAL = ROOT / "docs" / "tutorial.md"
CORRECTION = [
    "- retracted nothing -> connected",
    "+ asserted nothing -> alerting",
    "+ asserted alerting -> connected",
]
"""What section 6 says of the co-browse session."""


async def test_tutorial(kafka: str, unique_name: UniqueName, tmp_path: Path) -> None:
    pipeline = Pipeline(kafka, unique_name("p"), tmp_path)
    environ = environ_of(pipeline.settings)
    printed = {}
    try:
        for call in calls(TUTORIAL):
            if call == "run":
                await pipeline.start_worker()
                continue
            done = await ended(call, environ)
            assert done.exit_code == OK, done.printed
            printed[call] = done.printed
            if call.startswith("generate"):
                await pipeline.caught_up()
        (worker,) = pipeline.workers
        assert await worker.end(signal.SIGINT) == OK
    finally:
        await pipeline.close()
    (explained,) = [text for call, text in printed.items() if call.endswith("--why")]
    changes = re.findall(r"#2 cobrowse: ([-+] .*?) @", explained)
    at = changes.index(CORRECTION[0])
    assert changes[at : at + len(CORRECTION)] == CORRECTION
    assert "0 different" in printed["verify"]
    assert "wrong_type" in printed["dead-letters list"]


def test_kafka_of_the_tutorial_loses_no_markers() -> None:
    assert f"apache/kafka:{KEEPS_MARKERS}" in text_of(TUTORIAL)
