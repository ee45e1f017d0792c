"""Requests that aiokafka 0.14 does not offer, or only in versions without a field that is needed.

| request              | version | why                                                                             |
| -------------------- | ------- | ------------------------------------------------------------------------------- |
| Metadata             | 10      | the operations that the user may perform on a topic, and its id; Kafka 2.8      |
| DescribeGroups       | 4       | static members; aiokafka reads the answer to version 3 as version 2; Kafka 2.4  |
| OffsetFetch          | 7       | `require_stable` reports an offset whose transaction is open; Kafka 2.5         |
| DescribeProducers    | 0       | where the open transaction of a producer begins; Kafka 2.8                      |
| DescribeTransactions | 0       | how the last transaction of a transactional id ended; Kafka 2.8                 |
| ApiVersions          | 3       | which requests and features a broker's software supports; Kafka 2.4, 2.7        |

To send one raises NotImplementedError if the broker does not have the version, and IncompatibleBrokerVersion if it does
not have the request at all.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    AbstractType,
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

from consumer.version import VERSION

_TAGS = ("tags", TaggedFields)
_PARTITIONS = (
    "topics",
    CompactArray(("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), _TAGS),
)
"""Partitions by topic, in the form of flexible requests."""
_NO_ID = bytes(16)


def _by_partition(*fields: tuple[str, Any]) -> tuple[str, Any]:
    """Fields of partitions, by topic, in the form of flexible responses."""
    partitions = CompactArray(("partition", Int32), *fields, _TAGS)
    return ("topics", CompactArray(("topic", CompactString("utf-8")), ("partitions", partitions), _TAGS))


class Uuid(AbstractType[bytes]):  # type: ignore[misc]  # aiokafka has no types
    """The 16 bytes of an id."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """The value itself, which has 16 bytes."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        """The next 16 bytes."""
        return data.read(len(_NO_ID))


class _TopicsResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                _TAGS,
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        _TAGS,
    )


class _TopicsRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", CompactString("utf-8")), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicsRequest(Request[_TopicsRequest]):  # type: ignore[misc]  # as above
    """Metadata of topics, with their ids and the operations that the user may perform. Creates no topic."""

    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicsRequest]) -> _TopicsRequest:
        """See `Request.build`."""
        named: list[tuple[bytes, str, dict[int, bytes]]] = [(_NO_ID, topic, {}) for topic in self._topics]
        return request_struct_class(named, False, False, True, {})  # noqa: FBT003 - the order of the schema


class _GroupsResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("group_instance_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _GroupsRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = _GroupsResponse
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class AuthorizedGroupsRequest(Request[_GroupsRequest]):  # type: ignore[misc]  # as above
    """Descriptions of groups with their members, static ones too, and the operations that the user may perform."""

    API_KEY = 15

    def __init__(self, groups: list[str]) -> None:
        self._groups = groups

    def build(self, request_struct_class: type[_GroupsRequest]) -> _GroupsRequest:
        """See `Request.build`."""
        return request_struct_class(self._groups, True)  # noqa: FBT003 - the order of the schema


class _StableOffsetsResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        _by_partition(
            ("offset", Int64),
            ("leader_epoch", Int32),
            ("metadata", CompactString("utf-8")),
            ("error_code", Int16),
        ),
        ("error_code", Int16),
        _TAGS,
    )


class _StableOffsetsRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _StableOffsetsResponse
    SCHEMA = Schema(("group", CompactString("utf-8")), _PARTITIONS, ("require_stable", Boolean), _TAGS)


class StableOffsetsRequest(Request[_StableOffsetsRequest]):  # type: ignore[misc]  # as above
    """A group's committed offsets of a topic; error 88 where the transaction that commits one is open."""

    API_KEY = 9

    def __init__(self, group_id: str, topic: str, partitions: list[int]) -> None:
        self._group_id = group_id
        self._topic = topic
        self._partitions = partitions

    def build(self, request_struct_class: type[_StableOffsetsRequest]) -> _StableOffsetsRequest:
        """See `Request.build`."""
        return request_struct_class(self._group_id, [(self._topic, self._partitions, {})], True, {})  # noqa: FBT003 - the order of the schema


class _ProducersResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        _by_partition(
            ("error_code", Int16),
            ("error_message", CompactString("utf-8")),
            (
                "producers",
                CompactArray(
                    ("producer_id", Int64),
                    ("producer_epoch", Int32),
                    ("last_sequence", Int32),
                    ("last_timestamp", Int64),
                    ("coordinator_epoch", Int32),
                    ("transaction_start", Int64),
                    _TAGS,
                ),
            ),
        ),
        _TAGS,
    )


class _ProducersRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ProducersResponse
    SCHEMA = Schema(_PARTITIONS, _TAGS)


class DescribeProducersRequest(Request[_ProducersRequest]):  # type: ignore[misc]  # as above
    """The producers that wrote to partitions, and where the open transaction of each begins (-1 for none).

    For a broker that leads all the partitions; needs Read on the topics.
    """

    API_KEY = 61

    def __init__(self, topics: list[tuple[str, list[int]]]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_ProducersRequest]) -> _ProducersRequest:
        """See `Request.build`."""
        return request_struct_class([(topic, partitions, {}) for topic, partitions in self._topics], {})


class _TransactionsResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("timeout_ms", Int32),
                ("start_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                _PARTITIONS,
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _TransactionsRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TransactionsResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString("utf-8"))), _TAGS)


class DescribeTransactionRequest(Request[_TransactionsRequest]):  # type: ignore[misc]  # as above
    """The last transaction of a transactional id, for its coordinator."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[_TransactionsRequest]) -> _TransactionsRequest:
        """See `Request.build`."""
        return request_struct_class([self._transactional_id], {})


class _FeaturesResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_versions",
            CompactArray(("api_key", Int16), ("min_version", Int16), ("max_version", Int16), _TAGS),
        ),
        ("throttle_time_ms", Int32),
        _TAGS,
    )
    _SUPPORTED_FEATURES_TAG = 0
    _SUPPORTED_FEATURES = CompactArray(
        ("name", CompactString("utf-8")), ("min_version", Int16), ("max_version", Int16), _TAGS
    )

    def highest_versions(self) -> dict[int, int]:
        """The highest version of each request that the broker takes, by the key of the request."""
        return {key: highest for key, _, highest, _ in self.api_versions}

    def supported_features(self) -> dict[str, int]:
        """The highest level of each feature that the broker's software supports; the cluster may use a lower one."""
        encoded = self.tags.get(self._SUPPORTED_FEATURES_TAG)
        if encoded is None:
            return {}
        return {name: highest for name, _, highest, _ in self._SUPPORTED_FEATURES.decode(BytesIO(encoded))}


class _FeaturesRequest(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _FeaturesResponse
    SCHEMA = Schema(
        ("client_software_name", CompactString("utf-8")),
        ("client_software_version", CompactString("utf-8")),
        _TAGS,
    )

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        """Header version 0, though the request is flexible: by KIP-511 every client has to understand the response."""
        return ResponseHeader_v0.decode(read_buffer)


class FeaturesRequest(Request[_FeaturesRequest]):  # type: ignore[misc]  # as above
    """The features that a broker's software supports. Needs no permission."""

    API_KEY = 18

    def build(self, request_struct_class: type[_FeaturesRequest]) -> _FeaturesRequest:
        """See `Request.build`."""
        version = VERSION.replace("+", "-")  # a broker accepts letters, digits, dots and dashes only
        return request_struct_class("conversation-consumer", version, {})
