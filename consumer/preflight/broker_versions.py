"""Whether the brokers take the requests of `exactly_once`, and whether their version loses the end of transactions.

By its answer to ApiVersions a broker takes all requests of `NEEDED` from Kafka 2.8 on. The KRaft mode of 2.8 takes none
that begins or ends a transaction.

KAFKA-20734: when a transaction ends while one of its partitions has no leader, brokers from Kafka 4.3 on skip the
marker of that partition for good and report success; brokers up to 4.2 wait for the leader. The defect is in the
software. So the highest `metadata.version` that a broker supports counts, even if the cluster has finalized a lower
one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol import transaction
from msgspec import Struct

from consumer.kafka.protocol import (
    DescribeProducersRequest,
    DescribeTransactionRequest,
    FeaturesRequest,
    StableOffsetsRequest,
)
from consumer.kafka.timeouts import wait
from consumer.preflight.check_result import CheckResult

FEATURE: Final = "metadata.version"
RELEASES: Final = {21: "3.9 or earlier", 25: "4.0", 27: "4.1", 29: "4.2", 30: "4.3"}
"""Releases of Kafka by the highest `metadata.version` that each supports, in ascending order."""
MARKERS_LOST_FROM: Final = 30
"""The first `metadata.version` whose brokers lose markers. There is no last one until a release contains the fix."""
OLDEST_RELEASE: Final = "2.8"
"""The first release whose brokers take all requests of `NEEDED`."""
NEEDED: Final = {
    "InitProducerId": (transaction.InitProducerIdRequest.API_KEY, 0),
    "AddPartitionsToTxn": (transaction.AddPartitionsToTxnRequest.API_KEY, 0),
    "AddOffsetsToTxn": (transaction.AddOffsetsToTxnRequest.API_KEY, 0),
    "TxnOffsetCommit": (transaction.TxnOffsetCommitRequest.API_KEY, 0),
    "EndTxn": (transaction.EndTxnRequest.API_KEY, 0),
    "OffsetFetch": (StableOffsetsRequest.API_KEY, 7),
    "DescribeProducers": (DescribeProducersRequest.API_KEY, 0),
    "DescribeTransactions": (DescribeTransactionRequest.API_KEY, 0),
}
"""The requests of `exactly_once` that not all brokers take: the key of each, and the version that is needed."""

_SHOWN_MAX = 5
_LOST = (
    "when a transaction ends while one of its partitions has no leader, brokers from Kafka 4.3 on leave that partition "
    "out and report success (KAFKA-20734), so that an offset or a record that was committed may stay invisible"
)
_REMEDY = (
    "run Kafka 4.2 until a release contains the fix; give every topic 3 replicas, __consumer_offsets and "
    "__transaction_state among them, so that a partition is seldom without a leader; lanes repair their own "
    "transactions"
)
_TOO_OLD_REMEDY = (
    f"run Kafka {OLDEST_RELEASE} or later, with ZooKeeper if it is {OLDEST_RELEASE}; without transactions only "
    f"CC_DELIVERY=at_least_once is possible"
)


class BrokerFound(Struct, frozen=True):
    """What a broker says of its software; nothing is known of one that does not answer."""

    level: int | None = None
    """The highest `metadata.version` that it supports; None where that is not known."""
    missing: tuple[str, ...] = ()
    """The requests of `NEEDED` that it does not take."""


def check(brokers: Mapping[int, BrokerFound]) -> CheckResult:
    """Whether any broker lacks what `exactly_once` takes, which fails, or loses markers; brokers by node id."""
    incapable = [node for node, found in sorted(brokers.items()) if found.missing]
    if incapable:
        requests = ", ".join(name for name in NEEDED if any(name in brokers[node].missing for node in incapable))
        message = f"{_list_nodes(incapable)}: no {requests}, which CC_DELIVERY=exactly_once takes"
        return CheckResult("brokers", "fail", message, _TOO_OLD_REMEDY)
    by_level: dict[int, list[int]] = defaultdict(list)
    for node, found in sorted(brokers.items()):
        if found.level is not None:
            by_level[found.level].append(node)
    unknown = [node for node, found in sorted(brokers.items()) if found.level is None]
    parts = [
        f"{_list_nodes(nodes)}: {_name_release(level)} ({FEATURE} {level})" for level, nodes in sorted(by_level.items())
    ]
    if unknown:
        parts.append(f"{_list_nodes(unknown)}: version not known: too old to report it, or no answer")
    versions = "; ".join(parts) or "no broker is known"
    if any(level >= MARKERS_LOST_FROM for level in by_level):
        return CheckResult("brokers", "warn", f"{versions}: {_LOST}", _REMEDY)
    return CheckResult("brokers", "pass", versions)


def _list_nodes(nodes: list[int]) -> str:
    more = len(nodes) - _SHOWN_MAX
    numbers = ", ".join(map(str, nodes[:_SHOWN_MAX])) + (f" and {more} more" if more > 0 else "")
    return f"broker{'s' if len(nodes) > 1 else ''} {numbers}"


def _name_release(level: int) -> str:
    """The release whose highest `metadata.version` this is."""
    release = next((release for highest, release in RELEASES.items() if level <= highest), None)
    return f"Kafka {release}" if release else f"later than Kafka {RELEASES[max(RELEASES)]}"


async def find(client: AIOKafkaClient, timeout_s: float) -> dict[int, BrokerFound]:
    """What each broker of the cluster says of its software."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    return dict(zip(nodes, await asyncio.gather(*(_ask(client, node, timeout_s) for node in nodes)), strict=True))


async def _ask(client: AIOKafkaClient, node: int, timeout_s: float) -> BrokerFound:
    try:
        response = await wait(timeout_s, client.send(node, FeaturesRequest()))
    except NotImplementedError:  # before Kafka 2.4
        return BrokerFound(missing=tuple(NEEDED))
    except (KafkaError, TimeoutError, OSError):
        return BrokerFound()
    highest = response.highest_versions()
    missing = tuple(name for name, (key, version) in NEEDED.items() if highest.get(key, -1) < version)
    return BrokerFound(response.supported_features().get(FEATURE), missing)
