"""A broker inside the process, for the demo and for fast tests: librdkafka's mock cluster.

It is not Kafka. What it does not do decides what may be shown on it, which is `at_least_once` only:

1. No admin API: an admin client hangs, and settings of topics do not exist.
2. Every topic has `PARTITIONS` partitions: librdkafka's default, which its Python binding cannot change.
3. Offsets within transactions are not stored, zombies are not fenced, `read_committed` filters nothing, and
   `send_offsets_to_transaction` hangs while the source topic does not exist.
4. Produce responses carry a fixed timestamp, and only about 5 MB are kept per partition.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

PARTITIONS = 4
"""Of every topic of the embedded broker."""

_ANSWER_S = 10.0
_DROPPED = 0  # syslog level: only emergencies, so that the demo's terminal stays its own


class EmbeddedBroker:
    """One broker on loopback that lives from `start` to `stop`; also a context manager."""

    def __init__(self) -> None:
        self._cluster: Producer | None = None
        self.bootstrap_servers = ""
        """The address while it runs, empty before and after."""

    def start(self) -> str:
        """The bootstrap address. Raises confluent_kafka.KafkaException if the broker does not answer."""
        assert self._cluster is None, "started twice"
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": _DROPPED})
        brokers = cluster.list_topics(timeout=_ANSWER_S).brokers
        self._cluster = cluster
        (broker,) = brokers.values()
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        return self.bootstrap_servers

    def create_topics(self, names: Iterable[str]) -> None:
        """Bring topics into being, each with `PARTITIONS` partitions. Raises confluent_kafka.KafkaException."""
        assert self._cluster is not None, "not started"
        for name in names:
            found = self._cluster.list_topics(name, timeout=_ANSWER_S).topics[name]
            assert len(found.partitions) == PARTITIONS, f"{name!r} has {len(found.partitions)} partitions"

    def stop(self) -> None:
        """End the broker and all it holds. Clients should be closed before."""
        self._cluster = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
