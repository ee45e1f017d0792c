"""Brokers of other versions, and with lower levels of features: what holds there, and what `check` says of them."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient

from consumer.cli.exit_codes import OK
from consumer.preflight import broker_versions
from consumer.preflight.broker_versions import BrokerFound
from consumer.preflight.check_result import CheckStatus
from consumer.simulator.traffic import Traffic
from tests.live.broker import KEEPS_MARKERS, LOWEST_LEVELS, OLDEST_VERSION, PINNED_VERSION, BrokerError, LocalBroker
from tests.live.commands import ended, environ_of
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import Pipeline, now_ms

pytestmark = pytest.mark.timeout(180)

WITHIN_S = 60.0
COUNT = 4_000


async def run_check(pipeline: Pipeline) -> list[tuple[CheckStatus, str]]:
    """What `check` finds about brokers."""
    check = await ended("check --json", environ_of(pipeline.settings), WITHIN_S)
    assert check.exit_code == OK, check.printed
    findings = [json.loads(line) for line in check.printed.splitlines()]
    return [(finding["status"], finding["message"]) for finding in findings if finding["check"] == "brokers"]


@pytest.fixture
async def stage(
    request: pytest.FixtureRequest, unique_name: UniqueName, tmp_path: Path
) -> AsyncIterator[tuple[LocalBroker, Pipeline]]:
    """A broker of the version that the test names, formatted with the options after it, and the topics on it."""
    version, *options = request.param
    broker = LocalBroker(needed_jars(version), format_options=options)
    try:
        await asyncio.to_thread(broker.start)
        pipeline = Pipeline(broker.bootstrap_servers, unique_name("p"), tmp_path)
        await pipeline.create()
        yield broker, pipeline
        await pipeline.close()
    finally:
        await asyncio.to_thread(broker.close)


def test_make_test_also_runs_where_no_markers_are_lost() -> None:
    """The target before the whole suite, on the version that these tests take for the newest of that kind."""
    makefile = (Path(__file__).parent.parent.parent / "Makefile").read_text(encoding="utf-8")
    assert "\ntest: lint engine-of-tests test-4.2 " in makefile
    assert f" KAFKA_VERSION={KEEPS_MARKERS} " in makefile
    assert f"\nKAFKA := {OLDEST_VERSION}\n" in makefile


@pytest.mark.parametrize("stage", [(PINNED_VERSION,)], indirect=True)
async def test_check_and_run_warn_of_a_broker_from_4_3_on(stage: tuple[LocalBroker, Pipeline]) -> None:
    """By what the software supports; not where there are no transactions to lose anything of."""
    _, pipeline = stage
    ((verdict, found),) = await run_check(pipeline)
    assert verdict == "warn"
    assert "KAFKA-20734" in found
    worker = await pipeline.start_worker()
    await worker.logged("consumer.starting")
    (warning,) = worker.events("consumer.broker_defect")
    assert (warning["level"], warning["message"]) == ("warning", found)
    assert "until a release contains the fix" in warning["remedy"]
    pipeline.change(delivery="at_least_once")
    assert await run_check(pipeline) == []
    indifferent = await pipeline.start_worker()
    await indifferent.logged("consumer.starting")
    assert indifferent.events("consumer.broker_defect") == []


@pytest.mark.parametrize("stage", [(KEEPS_MARKERS,)], indirect=True)
async def test_an_earlier_broker_is_not_warned_of(stage: tuple[LocalBroker, Pipeline]) -> None:
    """Nor is one that has stopped answering, which is given up in time."""
    broker, pipeline = stage
    assert await run_check(pipeline) == [("pass", "broker 1: Kafka 4.2 (metadata.version 29)")]
    worker = await pipeline.start_worker()
    await worker.logged("consumer.starting")
    assert worker.events("consumer.broker_defect") == []
    client = AIOKafkaClient(bootstrap_servers=broker.bootstrap_servers)
    await client.bootstrap()
    try:
        broker.pause()
        async with asyncio.timeout(WITHIN_S):
            assert await broker_versions.find(client, 0.5) == {1: BrokerFound()}
    finally:
        broker.resume()
        await client.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "stage", [(OLDEST_VERSION,), (PINNED_VERSION, "--release-version", LOWEST_LEVELS)], ids=str, indirect=True
)
async def test_outputs_equal_the_model_on_old_software_and_features(stage: tuple[LocalBroker, Pipeline]) -> None:
    """A worker dies amid a commit, and its successor restores what it left."""
    _, pipeline = stage
    await run_check(pipeline)
    traffic = Traffic(seed=1, start_ms=now_ms(), disorder=0.2, duplicates=0.1, broken=0.01, conversations=100)
    await pipeline.write_traffic(traffic, COUNT)
    doomed = await pipeline.start_worker("tests.live.crashing", "killed", "before-send_offsets_to_transaction", "2")
    assert await doomed.ended() == -signal.SIGKILL, doomed.text()
    worker = await pipeline.start_worker("tests.live.witness")
    await worker.logged("lane.opened")
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).records == COUNT


class BrokerWithoutClassic(LocalBroker):
    """One whose groups are to speak the newer protocol only, which aiokafka does not speak."""

    def _properties(self) -> dict[str, str]:
        return super()._properties() | {"group.coordinator.rebalance.protocols": "consumer"}


def test_no_broker_is_without_the_classic_protocol() -> None:
    """So `check` has nothing to look for."""
    broker = BrokerWithoutClassic(needed_jars(PINNED_VERSION))
    try:
        with pytest.raises(BrokerError, match="Disabling the 'classic' protocol is not supported"):
            broker.start()
    finally:
        broker.close()
