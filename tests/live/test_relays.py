"""What real producers of relays write is applied by a real worker, and found by its conversation's id."""

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from consumer.cli.exit_codes import OK
from consumer.core.framing import Framing
from consumer.core.snapshot import Snapshot, decode
from consumer.kafka.records import partition_of
from tests.live.commands import WAIT_S, ended, environ_of
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.worker_process import WorkerProcess
from tests.strategies import NESTED_TOPICS, iso, websocket

SOURCE = Path(__file__).with_name("JsonConverterProducer.java")
EXPECTED: Final[dict[str, tuple[Framing, ...]]] = {
    "confluent": ("confluent", "key_confluent", "key_text"),
    "structured": ("cloudevents",),
    "binary": (),
    "connect": ("connect",),
}
"""The frames of each producer's record, by what its conversation's id begins with."""


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(kafka, unique_name("r"), tmp_path)
    await pipeline.create()
    yield pipeline
    await pipeline.close()


def home_of(key: bytes) -> int:
    """The partition of a key."""
    return partition_of(key, PARTITIONS)


def make_event(conversation_id: str) -> dict[str, Any]:
    leg = {"id": "m1", "state": "connected", "connectedTime": iso(now_ms() - 1_000)}
    return websocket(NESTED_TOPICS[0], {"id": conversation_id, "participants": [{"id": "p1", "calls": [leg]}]})


class Relays:
    """Writes an event of a conversation by each producer."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._servers = pipeline.settings.bootstrap_servers
        self._topic = pipeline.settings.input_topic
        self._registry = SchemaRegistryClient.new_client({"url": "mock://"})
        self._producer = Producer({"bootstrap.servers": self._servers, "partitioner": "murmur2_random"})

    def serialize(self, conversation_id: str) -> tuple[bytes, bytes]:
        """Key and value by Confluent's serializer for JSON Schema."""
        key = JSONSerializer('{"title":"id","type":"string"}', self._registry)
        value = JSONSerializer('{"title":"event","type":"object"}', self._registry)
        contexts = (SerializationContext(self._topic, field) for field in (MessageField.KEY, MessageField.VALUE))
        return key(conversation_id, next(contexts)), value(make_event(conversation_id), next(contexts))

    def send(self, key: bytes, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        self._producer.produce(self._topic, value, key, headers=dict(headers or {}))
        assert self._producer.flush(WAIT_S) == 0

    def send_cloud_event(self, conversation_id: str, message: KafkaMessage) -> None:
        self.send(conversation_id.encode(), message.value, message.headers)

    async def convert(self, conversation_id: str) -> None:
        """Write by Kafka Connect's JsonConverter."""
        process = await asyncio.create_subprocess_exec(
            "java", "-cp", f"{needed_jars()}/*", str(SOURCE), self._servers, self._topic, conversation_id,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(WAIT_S):
                printed, _ = await process.communicate(json.dumps(make_event(conversation_id)).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, printed.decode(errors="replace")[-4_000:]


def cloud_event(conversation_id: str) -> CloudEvent:
    attributes = {"type": "genesys.conversation", "source": "/relay", "id": "1", "specversion": "1.0"}
    return CloudEvent({**attributes, "datacontenttype": "application/json"}, make_event(conversation_id))


async def count_framings(worker: WorkerProcess) -> dict[str, float]:
    """`conversation_framings_total`, but for what is 0."""
    samples = re.findall(
        r'^conversation_framings_total\{.*framing="(\w+)".*\} (\S+)$', await worker.exposition(), re.MULTILINE
    )
    return {framing: float(count) for framing, count in samples if float(count)}


async def test_records_of_real_producers_are_applied_and_found(pipeline: Pipeline) -> None:
    """Lookups find the one whose key lies in another partition than its id, as long as keys are spelled like it."""
    relays, settings = Relays(pipeline), pipeline.settings
    serialized = ((name, *relays.serialize(name)) for name in map("confluent-{}".format, itertools.count()))
    confluent_id, key, value = next(one for one in serialized if home_of(one[1]) != home_of(one[0].encode()))
    relays.send(key, value)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    inspected = await ended(f"inspect {confluent_id} --json", environ_of(settings))
    assert inspected.exit_code == OK, inspected.printed
    assert json.loads(inspected.printed.splitlines()[0])["partition"] == home_of(key)

    relays.send_cloud_event("structured", to_structured_event(cloud_event("structured")))
    relays.send_cloud_event("binary", to_binary_event(cloud_event("binary")))
    await relays.convert("connect")
    await pipeline.caught_up()
    judged = await pipeline.judge()
    assert (judged.records, judged.dead) == (len(EXPECTED), 0)
    await worker.counted(len(EXPECTED))
    assert await count_framings(worker) == Counter(itertools.chain(*EXPECTED.values()))
    for record in await pipeline.read(settings.input_topic):
        decoded = decode(record, settings.rules())
        assert isinstance(decoded, Snapshot)
        producer = decoded.conversation_id.partition("-")[0]
        disposition = "applied" if decoded.conversation_id in judged.states else "not applied"
        first_bytes = repr((record.value or b"")[:28])
        print(f"{producer:12}{first_bytes:48}{disposition:12}{', '.join(decoded.framings) or 'none'}")
        assert (decoded.framings, disposition) == (EXPECTED[producer], "applied")
