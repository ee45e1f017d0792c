"""Which Kafka the brokers run, and whether that version loses the end of transactions (KAFKA-20734).

When a transaction ends while one of its partitions has no leader, brokers from Kafka 4.3 on skip the marker of that
partition for good and report success; brokers up to 4.2 wait for the leader. The defect is in the software. So the
highest `metadata.version` that a broker supports counts, even if the cluster has finalized a lower one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from consumer.kafka.protocol import FeaturesRequest
from consumer.kafka.timeouts import wait
from consumer.preflight.check_result import CheckResult

FEATURE: Final = "metadata.version"
RELEASES: Final = {21: "3.9 or earlier", 25: "4.0", 27: "4.1", 29: "4.2", 30: "4.3"}
"""Releases of Kafka by the highest `metadata.version` that each supports, in ascending order."""
MARKERS_LOST_FROM: Final = 30
"""The first `metadata.version` whose brokers lose markers. There is no last one until a release contains the fix."""

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


def check(levels: Mapping[int, int | None]) -> CheckResult:
    """Whether any broker loses markers, given the highest `metadata.version` by node id; None where it is not known."""
    by_level: dict[int, list[int]] = defaultdict(list)
    for node, level in sorted(levels.items()):
        if level is not None:
            by_level[level].append(node)
    unknown = [node for node, level in sorted(levels.items()) if level is None]
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


async def find(client: AIOKafkaClient, timeout_s: float) -> dict[int, int | None]:
    """The highest `metadata.version` that each broker of the cluster supports; None where it does not answer."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    return dict(zip(nodes, await asyncio.gather(*(_ask(client, node, timeout_s) for node in nodes)), strict=True))


async def _ask(client: AIOKafkaClient, node: int, timeout_s: float) -> int | None:
    try:
        response = await wait(timeout_s, client.send(node, FeaturesRequest()))
    except (KafkaError, NotImplementedError, TimeoutError, OSError):
        return None
    level: int | None = response.supported_features().get(FEATURE)
    return level
