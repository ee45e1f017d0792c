"""Writing generated records to a topic, by aiokafka."""

import asyncio
from collections.abc import Iterable
from itertools import islice
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaError

from consumer.adapters.kafka.batches import producer
from consumer.adapters.kafka.bounds import stopped
from consumer.adapters.kafka.connection import start
from consumer.adapters.kafka.faults import world_error
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft

_START_S = 15.0
_FLUSH_S = 60.0
_PENDING_MAX = 2_000
_REQUEST_BYTES_MAX = 8_388_608


class KafkaWriter:
    """An idempotent producer, as an async context manager. Raises WorldError from every method but leaving.

    Keys go to partitions as the Java client sends them (murmur2), so one conversation stays in one partition.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.input_topic
        self._pending: list[asyncio.Future[Any]] = []
        self._producer = producer(settings, linger_ms=5, max_request_size=_REQUEST_BYTES_MAX)

    async def __aenter__(self) -> Self:
        await start(self._producer.start(), self._settings, _START_S, self._stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        for sent in self._pending:
            if sent.done() and not sent.cancelled():
                sent.exception()  # seen: the error that ended the block says it already

    async def write(self, drafts: Iterable[Draft]) -> int:
        """Write records in their order per key, waiting for the broker when too many are on the way; how many."""
        drafts, written = iter(drafts), 0
        while some := list(islice(drafts, _PENDING_MAX - len(self._pending))):
            try:
                async with asyncio.timeout(_FLUSH_S):
                    for draft in some:
                        self._pending.append(await self._send(draft))
            except (KafkaError, TimeoutError) as error:
                raise self._refused(error) from error
            written += len(some)
            if len(self._pending) >= _PENDING_MAX:
                await self.flush()
        return written

    async def flush(self) -> None:
        """Wait until the broker has everything."""
        pending, self._pending = self._pending, []
        try:
            async with asyncio.timeout(_FLUSH_S):
                await asyncio.gather(*pending)
        except (KafkaError, TimeoutError) as error:
            raise self._refused(error) from error

    async def _stop(self) -> None:
        await stopped(self._producer.stop(), self._producer.client, _START_S)

    async def _send(self, draft: Draft) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(
            self._topic, draft.value, key=draft.key, timestamp_ms=draft.timestamp_ms, headers=list(draft.headers)
        )
        return sent

    def _refused(self, error: BaseException) -> Exception:
        return world_error(error, f"writing to topic {self._topic!r} (CC_INPUT_TOPIC)")
