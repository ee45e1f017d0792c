"""The repair tools on a real broker."""

from pathlib import Path

import pytest

from consumer.simulator.traffic import Traffic
from tests.live.commands import ended
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline, now_ms

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


async def test_a_topic_is_copied_once_however_often_the_command_is_given(
    kafka: str, unique_name: UniqueName, tmp_path: Path
) -> None:
    source, target = (Pipeline(kafka, unique_name(name), tmp_path) for name in ("a", "b"))
    await source.create()
    await target.create()
    await source.feed(Traffic(seed=3, start_ms=now_ms(), conversations=50), 500)
    environ = {"CC_BOOTSTRAP_SERVERS": kafka}
    command = f"rekey {source.settings.input_topic} {target.settings.input_topic}"
    first = await ended(command, environ, 20)
    again = await ended(command, environ, 20)
    assert (first.exit_code, again.exit_code) == (0, 0), first.printed + again.printed
    found = await target.read(target.settings.input_topic)
    given = await source.read(source.settings.input_topic)
    assert sorted((r.value or b"", r.timestamp_ms) for r in found) == sorted(
        (r.value or b"", r.timestamp_ms) for r in given
    )
