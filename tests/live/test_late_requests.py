"""Requests that a broker gets to see late, when their sender has long given them up and gone on.

A request that timed out is lost, or still on its way. The broker knows a late one from a new one only by the producer's
epoch, and by its sequence number if it has one: of the requests of a transaction only those that write records do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from consumer.engine.output import Output
from consumer.kafka.publisher import TransactionalPublisher
from consumer.settings import Settings
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Effects, RetriableError
from tests.live.broker import KAFKA_VERSION, KEEPS_LATE_OFFSETS_OUT, LocalBroker, release_of
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import Pipeline
from tests.live.proxy import END_TXN, PRODUCE, TXN_OFFSET_COMMIT, Proxy
from tests.tuned import with_changes

HANDLED_S = 1.0


@pytest.fixture
async def stage(unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[tuple[LocalBroker, Pipeline, Proxy]]:
    broker = LocalBroker(needed_jars())
    try:
        await asyncio.to_thread(broker.start)
        async with Proxy(broker.front_port, broker.behind_port) as proxy:
            made = Pipeline(broker.bootstrap_servers, unique_name("p"), tmp_path)
            await made.create()
            yield broker, made, proxy
    finally:
        await asyncio.to_thread(broker.close)


class Owner:
    """Who commits for partition 0, with a new producer whenever one has failed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publisher: TransactionalPublisher | None = None

    async def commit(self, number: int) -> None:
        """Two states, each in a batch of its own, and one transition."""
        states = [Output(f"c{number}-{index}".encode(), b"x" * self._settings.batch_bytes_max) for index in range(2)]
        effects = Effects(number, OffsetMetadata(), states, [Output(b"c", str(number).encode())], [])
        while True:
            with contextlib.suppress(RetriableError):
                if self._publisher is None:
                    self._publisher = TransactionalPublisher(self._settings, 0)
                    await self._publisher.open()
                await self._publisher.commit(effects)
                return
            await self.close()

    async def notices_displaced_offset(self) -> None:
        """Earlier coordinators lose the offset of the last commit, until they start again: no commit follows it."""
        assert self._publisher is not None
        with pytest.raises(RetriableError, match="the group's offsets"):
            await self._publisher.confirm()

    async def close(self) -> None:
        if self._publisher is not None:
            publisher, self._publisher = self._publisher, None
            await publisher.close()


@pytest.mark.parametrize(("late", "amid", "nth"), [(END_TXN, PRODUCE, 2), (TXN_OFFSET_COMMIT, END_TXN, 1)])
async def test_late_request_has_no_part_in_the_next_transaction(
    stage: tuple[LocalBroker, Pipeline, Proxy], late: int, amid: int, nth: int
) -> None:
    """Its end would commit what is written so far without the rest; its offset would take the place of the newer.

    Before Kafka 4.0 a late offset displaces the newer one until the coordinator of the group starts again. The lane
    does not go on then.
    """
    broker, pipeline, proxy = stage
    front = f"127.0.0.1:{proxy.port}"
    settings = with_changes(
        pipeline.settings, bootstrap_servers=front, request_timeout_ms=2_000, batch_bytes_max=16_384
    )
    owner = Owner(settings)
    seen = 0

    async def deliver(kind: int) -> None:
        nonlocal seen
        seen += kind == amid
        if kind == amid and seen == nth:
            proxy.deliver()
            await asyncio.sleep(HANDLED_S)

    try:
        async with asyncio.timeout(WAIT_S):
            await owner.commit(1)
            proxy.wanted = late
            await owner.commit(2)
            assert proxy.has_kept
            proxy.passes = deliver
            await owner.commit(3)
            assert seen >= nth
            if late == TXN_OFFSET_COMMIT and release_of(KAFKA_VERSION) < KEEPS_LATE_OFFSETS_OUT:
                await owner.notices_displaced_offset()
                await asyncio.to_thread(broker.restart)
    finally:
        await owner.close()
    await pipeline.committed_up_to(
        {tp: 3 if tp.partition == 0 else 0 for tp in await pipeline.ends(settings.input_topic)}
    )
    states = [record.key for record in await pipeline.read_any(settings.state_topic)]
    transitions = [record.value for record in await pipeline.read_any(settings.transitions_topic)]
    assert transitions == [b"1", b"2", b"3"]
    assert states == [f"c{number}-{index}".encode() for number in (1, 2, 3) for index in range(2)]
    assert (await pipeline.committed())[TopicPartition(settings.input_topic, 0)].offset == 3
