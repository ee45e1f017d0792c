"""Writing generated records to a topic, by aiokafka."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumer.adapters.kafka_connection import connection_arguments, world_error
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft

_START_S = 15.0
_FLUSH_S = 60.0
_PENDING_MAX = 2_000


class KafkaWriter:
    """An idempotent producer, as an async context manager. Raises WorldError from every method."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.input_topic
        self._pending: list[asyncio.Future[Any]] = []
        self._producer = AIOKafkaProducer(
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=262_144,
            max_request_size=8_388_608,
            compression_type="zstd",
            **connection_arguments(settings),
        )

    async def __aenter__(self) -> "KafkaWriter":
        try:
            await asyncio.wait_for(self._producer.start(), _START_S)
        except (KafkaError, TimeoutError, OSError) as error:
            await self._producer.client.close()
            raise world_error(error, "connecting to CC_BOOTSTRAP_SERVERS") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._producer.stop(), _START_S)
        except (KafkaError, TimeoutError):
            await self._producer.client.close()

    async def write(self, drafts: Iterable[Draft]) -> None:
        """Write records in their order per key, and wait for the broker when too many are on the way."""
        for draft in drafts:
            sending = self._producer.send(
                self._topic, draft.value, key=draft.key, timestamp_ms=draft.timestamp_ms
            )
            try:
                self._pending.append(await asyncio.wait_for(sending, _FLUSH_S))
            except (KafkaError, TimeoutError) as error:
                raise world_error(error, f"writing to topic {self._topic!r} (CC_INPUT_TOPIC)") from error
            if len(self._pending) >= _PENDING_MAX:
                await self.flush()

    async def flush(self) -> None:
        """Wait until the broker has everything."""
        pending, self._pending = self._pending, []
        try:
            await asyncio.wait_for(asyncio.gather(*pending), _FLUSH_S)
        except (KafkaError, TimeoutError) as error:
            raise world_error(error, f"writing to topic {self._topic!r} (CC_INPUT_TOPIC)") from error
