"""A broker inside the process, for the demo and for fast tests: librdkafka's mock cluster.

It is not Kafka. Because of what it lacks, only `at_least_once` can run on it:

1. No admin API: an admin client hangs, and settings of topics do not exist.
2. Every topic has `PARTITIONS` partitions: librdkafka's default, which its Python binding cannot change.
3. Offsets within transactions are not stored, zombies are not fenced, `read_committed` filters nothing, and
   `send_offsets_to_transaction` hangs while the source topic does not exist.
4. Produce responses carry a fixed timestamp, and only about 5 MB are kept per partition.
"""

from collections.abc import Iterable
from typing import Self

from confluent_kafka import Producer

PARTITIONS = 4
"""The partitions of every topic."""

_RESPONSE_S = 10.0
_EMERGENCY = 0  # a syslog level, so that librdkafka writes nothing into the demo's terminal


class EmbeddedBroker:
    """One broker on loopback, as a context manager. Raises confluent_kafka.KafkaException if it does not answer."""

    def __init__(self) -> None:
        self._cluster: Producer | None = None
        self.bootstrap_servers = ""
        """The address while the broker runs, else empty."""

    def __enter__(self) -> Self:
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": _EMERGENCY})
        (broker,) = cluster.list_topics(timeout=_RESPONSE_S).brokers.values()
        self._cluster = cluster
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster = None  # the broker ends with its producer; close clients before
        self.bootstrap_servers = ""

    def create_topics(self, names: Iterable[str]) -> None:
        """Create topics of `PARTITIONS` partitions."""
        assert self._cluster is not None, "not started"
        for name in names:
            topic = self._cluster.list_topics(name, timeout=_RESPONSE_S).topics[name]  # which creates it
            assert len(topic.partitions) == PARTITIONS, f"{name!r} has {len(topic.partitions)} partitions"
