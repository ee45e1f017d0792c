"""Quotas of a broker for a client (KIP-546), which aiokafka's admin client cannot set."""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String

_ENTITY = ("entity", Array(("type", String("utf-8")), ("name", String("utf-8"))))


class _Answer(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 49
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("entries", Array(("error_code", Int16), ("error_message", String("utf-8")), _ENTITY)),
    )


class _AlterClientQuotas(RequestStruct):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        (
            "entries",
            Array(_ENTITY, ("ops", Array(("key", String("utf-8")), ("value", Float64), ("remove", Boolean)))),
        ),
        ("validate_only", Boolean),
    )


class AlterClientQuotasRequest(Request[_AlterClientQuotas]):  # type: ignore[misc]
    API_KEY = 49

    def __init__(self, client_id: str, quota: str, value: float | None) -> None:
        self._entries = [([("client-id", client_id)], [(quota, value or 0.0, value is None)])]

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._entries, False)  # noqa: FBT003 - not only validated


async def set_quota(bootstrap_servers: str, client_id: str, quota: str, value: float | None) -> None:
    """Set a quota of all connections with this client id, such as `consumer_byte_rate`; None removes it."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    try:
        answer = await client.send(client.get_random_node(), AlterClientQuotasRequest(client_id, quota, value))
    finally:
        await client.close()
    ((error_code, message, _),) = answer.entries
    assert error_code == 0, message
