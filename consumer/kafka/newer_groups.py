"""Members of a group that speak its newer protocol (KIP-848), which aiokafka does not.

A broker lets members of both protocols into one group and shares the partitions among them. Then DescribeGroups says
that there is no such group, and ConsumerGroupDescribe has all members. Its version 1, of Kafka 4.0, says which protocol
each of them speaks.
"""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int8, Int16, Int32, Schema, TaggedFields

from consumer.kafka.coordinator import Group
from consumer.kafka.protocol import Uuid

_NEWER = 1
"""The type of a member that speaks the newer protocol; 0 speaks the classic one."""
_TAGS = ("tags", TaggedFields)
_ASSIGNMENT = Schema(
    (
        "partitions",
        CompactArray(("topic_id", Uuid), ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), _TAGS),
    ),
    _TAGS,
)


class _MembersResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 69
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            CompactArray(
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("group", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("group_epoch", Int32),
                ("assignment_epoch", Int32),
                ("assignor", CompactString("utf-8")),
                (
                    "members",
                    CompactArray(
                        ("member_id", CompactString("utf-8")),
                        ("group_instance_id", CompactString("utf-8")),
                        ("rack", CompactString("utf-8")),
                        ("member_epoch", Int32),
                        ("client_id", CompactString("utf-8")),
                        ("client_host", CompactString("utf-8")),
                        ("topics", CompactArray(CompactString("utf-8"))),
                        ("topic_regex", CompactString("utf-8")),
                        ("assignment", _ASSIGNMENT),
                        ("target_assignment", _ASSIGNMENT),
                        ("member_type", Int8),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MembersRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 69
    API_VERSION = 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MembersResponse
    SCHEMA = Schema(("groups", CompactArray(CompactString("utf-8"))), ("include_authorized_operations", Boolean), _TAGS)


class _DescribeMembersRequest(Request[_MembersRequest]):  # type: ignore[misc]  # as above
    API_KEY = 69

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request_struct_class: type[_MembersRequest]) -> _MembersRequest:
        """See `Request.build`."""
        return request_struct_class([self._group_id], False, {})  # noqa: FBT003 - the order of the schema


async def find_newer_members(client: AIOKafkaClient, group_id: str) -> tuple[str, ...]:
    """The hosts of those members that speak the newer protocol; none where brokers are older. Raises KafkaError."""
    try:
        response: Any = await Group(client, group_id).ask(_DescribeMembersRequest(group_id))
    except (NotImplementedError, IncompatibleBrokerVersion):
        return ()
    ((_, _, _, _, _, _, _, members, *_),) = response.groups
    return tuple(host.removeprefix("/") for *_, host, _, _, _, _, kind, _ in members if kind == _NEWER)
