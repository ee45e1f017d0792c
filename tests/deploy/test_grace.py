"""The grace period of a pod is enough by default, also while no broker answers."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.cli import exit_codes
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic
from tests.deploy.manifests import Manifest, pod_templates
from tests.live.broker import LocalBroker, jars
from tests.live.harness import Pipeline, now_ms

pytestmark = [pytest.mark.deep, pytest.mark.timeout(300)]

RECORDS = 3_000
SHORTENED = (
    "session_timeout_ms",
    "commit_timeout_s",
    "drain_s",
)
"""Settings that the harness shortens for other tests."""


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    """A broker of the test's own, since the test pauses it."""
    ready = jars()
    if isinstance(ready, str):
        pytest.fail(ready)
    broker = LocalBroker(ready)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


async def test_a_worker_ends_in_time_while_no_broker_answers(
    broker: LocalBroker, rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    (template,) = pod_templates(rendered["base"])
    grace_s = template["spec"]["terminationGracePeriodSeconds"]
    default = Settings(bootstrap_servers=broker.bootstrap_servers)
    defaults = {name: getattr(default, name) for name in SHORTENED}
    pipeline = Pipeline(broker.bootstrap_servers, "grace", tmp_path, **defaults)
    await pipeline.create()
    traffic = Traffic(seed=1, start_ms=now_ms())
    try:
        worker = await pipeline.start_worker()
        await pipeline.write_traffic(traffic, RECORDS)
        await pipeline.caught_up(60)
        await pipeline.write_traffic(traffic, RECORDS, skip=RECORDS)
        broker.pause()
        began_s = time.monotonic()
        assert await worker.end(signal.SIGTERM, grace_s) == exit_codes.OK
        print(f"ended {time.monotonic() - began_s:.1f} s after SIGTERM, of {grace_s}")
    finally:
        broker.resume()
        await pipeline.close()
