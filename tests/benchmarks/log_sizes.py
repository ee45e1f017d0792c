"""How many bytes topics take on the disks of their brokers."""

from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Int64, Schema, String

_PARTITION = (("partition", Int32), ("size", Int64), ("offset_lag", Int64), ("is_future", Boolean))


class _Response(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 35
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "log_dirs",
            Array(
                ("error_code", Int16),
                ("log_dir", String("utf-8")),
                ("topics", Array(("name", String("utf-8")), ("partitions", Array(*_PARTITION)))),
            ),
        ),
    )


class _Request(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 35
    API_VERSION = 1
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(("topics", Array(("name", String("utf-8")), ("partitions", Array(Int32)))))


class _DescribeLogDirs(Request[_Request]):  # type: ignore[misc]  # as above
    API_KEY = 35

    def __init__(self, topics: list[tuple[str, list[int]]]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_Request]) -> _Request:
        return request_struct_class(self._topics)


async def measure_bytes(bootstrap_servers: str, topics: list[str], partitions: int) -> dict[str, int]:
    """The bytes of topics, of all their replicas together."""
    sizes = dict.fromkeys(topics, 0)
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        for broker in admin._client.cluster.brokers():
            request = _DescribeLogDirs([(topic, list(range(partitions))) for topic in topics])
            answer = await admin._client.send(broker.nodeId, request)
            for _, _, found in answer.log_dirs:
                for name, replicas in found:
                    sizes[name] += sum(size for _, size, _, _ in replicas)
    finally:
        await admin.close()
    return sizes
