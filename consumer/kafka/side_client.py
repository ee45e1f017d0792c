"""A client beside the group member, so that a broker that does not answer it delays no request of the member."""

import contextlib

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from consumer.kafka.connection import connection_arguments
from consumer.kafka.timeouts import wait
from consumer.settings import Settings

REQUEST_MS = 4_000
_STOP_S = 5.0


class SideClient:
    """A network client that connects at the first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AIOKafkaClient | None = None

    async def connect(self) -> AIOKafkaClient:
        """The client, which is connected first where there is none yet. Raises KafkaError; the caller bounds it."""
        if self._client is None:
            client = AIOKafkaClient(**connection_arguments(self._settings) | {"request_timeout_ms": REQUEST_MS})
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
            self._client = client
        return self._client

    async def stop(self) -> None:
        """Close the connections, within a bounded time."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await wait(_STOP_S, client.close())
