"""Write generated records to the input topic."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

from consumer.kafka.connection import start
from consumer.kafka.errors import call
from consumer.kafka.producer import create_producer
from consumer.kafka.timeouts import consume_exception, stop_client
from consumer.settings import Settings
from consumer.simulator.traffic import Draft

_START_S = 15.0
_FLUSH_S = 60.0
_PENDING_MAX = 2_000
_REQUEST_BYTES_MAX = 8_388_608


class TrafficWriter:
    """An idempotent producer, as an async context manager. Every method but `__aexit__` raises ExternalError.

    It partitions by key as the Java client does (murmur2), so a conversation stays in one partition.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.input_topic
        self._pending: list[asyncio.Future[Any]] = []
        self._producer = create_producer(settings, linger_ms=5, max_request_size=_REQUEST_BYTES_MAX)

    async def __aenter__(self) -> Self:
        await start(self._producer.start(), self._settings, _START_S, self._stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        for answer in self._pending:
            if answer.done():
                consume_exception(answer)  # the error that ended the block has the same cause

    async def write(self, drafts: Iterable[Draft]) -> int:
        """Write records in their order per key and return how many; waits for the broker if too many are pending."""
        drafts, written = iter(drafts), 0
        while burst := list(islice(drafts, _PENDING_MAX - len(self._pending))):
            await call(_FLUSH_S, self._send_all(burst), self._describe())
            written += len(burst)
            if len(self._pending) >= _PENDING_MAX:
                await self.flush()
        return written

    async def flush(self) -> None:
        """Wait until the broker has acknowledged every record."""
        pending, self._pending = self._pending, []
        await call(_FLUSH_S, asyncio.gather(*pending), self._describe())

    async def _stop(self) -> None:
        await stop_client(self._producer.stop(), self._producer.client, _START_S)

    async def _send_all(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            self._pending.append(await self._send(draft))

    async def _send(self, draft: Draft) -> asyncio.Future[Any]:
        """Hand a record to the producer; returns the future answer of the broker."""
        answer: asyncio.Future[Any] = await self._producer.send(
            self._topic, draft.value, key=draft.key, timestamp_ms=draft.timestamp_ms, headers=list(draft.headers)
        )
        return answer

    def _describe(self) -> str:
        return f"writing to topic {self._topic!r} (CC_INPUT_TOPIC)"
