"""Topics, offsets and groups that others damage: a worker continues if that is safe, else it ends with a remedy."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.record.util import calc_crc32c

from consumer.kafka.group_consumer import GroupConsumer, Listener
from consumer.preflight.topic_admin import TopicAdmin
from consumer.simulator.traffic import Draft, Traffic
from consumer.tools.traffic_writer import TrafficWriter
from consumer.worker.ports import ExternalError, RetriableError
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.worker_process import WorkerProcess

COUNT = 1_000
CONFIG = 78


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(kafka, unique_name("p"), tmp_path, dead_letters_consecutive_max=50)
    await pipeline.create()
    yield pipeline
    await pipeline.close()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await asyncio.wait_for(client.start(), WAIT_S)
    yield client
    await client.close()


async def configure(admin: AIOKafkaAdminClient, topic: str, **changed: str) -> None:
    """Configure a topic, and wait until the brokers apply the configuration.

    A broker describes a change before it applies it, but it processes changes in order: once it describes a second
    change, sent after it described the first, the first is applied.
    """
    wanted = {"max.message.bytes": "1048588"} | {name.replace("_", "."): value for name, value in changed.items()}
    for delay_ms in ("60001", "60002"):
        wanted["file.delete.delay.ms"] = delay_ms
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        async with asyncio.timeout(WAIT_S):
            while not wanted.items() <= (await describe(admin, topic)).items():
                await asyncio.sleep(0.02)


async def describe(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """A topic's settings."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((*_, settings),) = answer.resources
    return {name: value for name, value, *_ in settings}


def traffic(seed: int, broken: float = 0.01) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), conversations=50, broken=broken)


async def consume_input(pipeline: Pipeline) -> None:
    """Start a worker, let it consume the whole input, and stop it."""
    worker = await pipeline.start_worker()
    await wait_for_lanes(worker)
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0


async def wait_for_lanes(worker: WorkerProcess) -> None:
    """Wait until a worker has opened all lanes."""
    async with asyncio.timeout(WAIT_S):
        while len(worker.events("lane.opened")) < PARTITIONS:
            await asyncio.sleep(0.05)


async def fail_to_start(pipeline: Pipeline) -> str:
    """Start a worker that must refuse to run; returns its error."""
    worker = await pipeline.start_worker()
    assert await worker.ended() == CONFIG, worker.text()
    return str(worker.events("consumer.failed")[0]["error"])


async def test_recreated_state_topic_is_refused_and_can_be_rebuilt(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    settings = pipeline.settings
    await pipeline.write_traffic(traffic(1), COUNT)
    await consume_input(pipeline)
    before = await pipeline.judge()
    await admin.delete_topics([settings.state_topic])
    assert "(CC_STATE_TOPIC) does not exist" in await fail_to_start(pipeline)
    async with TopicAdmin(settings) as topics:
        await topics.create(PARTITIONS, 1)
    assert "--reset-offsets" in await fail_to_start(pipeline)
    await pipeline.reset_offsets()
    await consume_input(pipeline)
    assert await pipeline.states() == before.states


async def test_committed_offset_older_than_the_state_is_refused(pipeline: Pipeline) -> None:
    """A coordinator that was killed together with its replicas may return such an offset for a while."""
    await pipeline.write_traffic(traffic(21), COUNT)
    await consume_input(pipeline)
    older = await pipeline.committed()
    await pipeline.write_traffic(traffic(22), COUNT)
    await consume_input(pipeline)
    newest = await pipeline.committed()
    await pipeline.reset_offsets(older)
    retry_s_max = pipeline.settings.tuning.retry_s_max
    pipeline.change(retry_s_max=3)
    assert "this is not the newest" in await fail_to_start(pipeline)
    await pipeline.reset_offsets(newest)
    pipeline.change(retry_s_max=retry_s_max)
    await consume_input(pipeline)
    await pipeline.judge()


async def test_records_deleted_before_the_start_are_reported(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    """The worker logs the reset of the offset, and consumes the records that are left."""
    await pipeline.write_traffic(traffic(3), COUNT)
    await consume_input(pipeline)
    await pipeline.write_traffic(traffic(4), COUNT)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await admin.delete_records({partition: RecordsToDelete(before_offset=end - 5) for partition, end in ends.items()})
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert len(worker.events("lane.offset_reset")) == PARTITIONS
    assert await worker.counted(5 * PARTITIONS) == 5 * PARTITIONS
    assert await worker.end(signal.SIGTERM) == 0


async def test_records_deleted_while_running_are_reported(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    """Retention deletes records that a running worker has not fetched yet."""
    worker = await pipeline.start_worker()
    await pipeline.write_traffic(traffic(7), COUNT)
    await pipeline.caught_up()
    worker.send(signal.SIGSTOP)
    await pipeline.write_traffic(traffic(8), COUNT)  # an answer with some of it is already on its way
    await pipeline.write_traffic(traffic(9), COUNT)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await admin.delete_records({partition: RecordsToDelete(before_offset=end - 5) for partition, end in ends.items()})
    worker.send(signal.SIGCONT)
    await pipeline.caught_up()
    assert {event["partition"] for event in worker.events("lane.offset_reset")} == set(range(PARTITIONS))
    assert await worker.end(signal.SIGTERM) == 0


async def test_offset_past_the_end_replays_without_effect(pipeline: Pipeline) -> None:
    """The worker consumes the input from its beginning, and publishes no further transition."""
    await pipeline.write_traffic(traffic(10, broken=0.0), COUNT)
    await consume_input(pipeline)
    before = await pipeline.judge()
    await pipeline.reset_offsets(10**9)
    worker = await pipeline.start_worker()
    await worker.logged("lane.offset_reset")
    await worker.counted(COUNT)
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).operations == before.operations


async def test_offset_within_an_open_transaction_is_kept(pipeline: Pipeline) -> None:
    """`--to-latest` may set such an offset. The worker waits there, and consumes only what is written later."""
    await pipeline.write_traffic(traffic(22, broken=0.0), COUNT)
    settings = pipeline.settings
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id)
    async with asyncio.timeout(WAIT_S), producer:
        await producer.begin_transaction()
        for partition in range(PARTITIONS):
            await producer.send_and_wait(settings.input_topic, b"no JSON", partition=partition)
        stable = await pipeline.ends(settings.input_topic)
        await pipeline.reset_offsets({partition: end + 1 for partition, end in stable.items()})
        worker = await pipeline.start_worker()
        await wait_for_lanes(worker)
        await producer.abort_transaction()
    await pipeline.write_traffic(traffic(23, broken=0.0), COUNT)
    await pipeline.caught_up()
    assert await worker.counted(COUNT) == COUNT
    assert not worker.events("lane.offset_reset", "lane.failed")
    assert await worker.end(signal.SIGTERM) == 0


async def test_state_topic_deleted_while_running_ends_the_worker(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    """The states can then be rebuilt from the input."""
    pipeline.change(retry_s_max=8.0, commit_timeout_s=2.0, request_timeout_ms=2_000)
    worker = await pipeline.start_worker()
    await pipeline.write_traffic(traffic(11), COUNT)
    await pipeline.caught_up()
    await admin.delete_topics([pipeline.settings.state_topic])
    await pipeline.write_traffic(traffic(12), COUNT)
    assert await worker.ended() == CONFIG, worker.text()
    assert "could not be served for 8 s" in str(worker.events("consumer.failed")[0]["error"])
    assert "(CC_STATE_TOPIC) does not exist" in await fail_to_start(pipeline)
    async with TopicAdmin(pipeline.settings) as topics:
        await topics.create(PARTITIONS, 1)
    assert "--reset-offsets" in await fail_to_start(pipeline)
    await pipeline.reset_offsets()
    await consume_input(pipeline)
    assert not [mismatch for mismatch in (await pipeline.compare()).mismatches if "state of" in mismatch]


async def test_state_topic_recreated_while_running_ends_the_worker(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    worker = await pipeline.start_worker()
    await pipeline.write_traffic(traffic(13), COUNT)
    await pipeline.caught_up()
    await admin.delete_topics([pipeline.settings.state_topic])
    async with TopicAdmin(pipeline.settings) as topics:
        await topics.create(PARTITIONS, 1)
    await pipeline.write_traffic(traffic(14), COUNT)
    assert await worker.ended() == CONFIG, worker.text()
    assert "recreated" in str(worker.events("consumer.failed")[0]["error"])
    assert "--reset-offsets" in await fail_to_start(pipeline)


async def test_misconfigured_state_topic_loses_nothing(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    """The topic is misconfigured under a running worker, which continues; the next start is refused."""
    topic = pipeline.settings.state_topic
    worker = await pipeline.start_worker()
    await pipeline.write_traffic(traffic(15), COUNT)
    await pipeline.caught_up()
    await configure(admin, topic, cleanup_policy="delete", max_message_bytes="900000")
    await pipeline.write_traffic(traffic(16), COUNT)
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    assert "has cleanup.policy=delete, it has to be compact" in await fail_to_start(pipeline)
    await configure(admin, topic, cleanup_policy="compact")
    await consume_input(pipeline)
    assert (await pipeline.judge()).records == 2 * COUNT


async def test_records_and_states_larger_than_a_fetch_are_read(pipeline: Pipeline) -> None:
    pipeline.change(partition_fetch_bytes_max=1)
    await pipeline.write_traffic(traffic(17), 200)
    for _ in range(2):
        await consume_input(pipeline)
    assert (await pipeline.judge()).records == 200


async def test_partitions_added_to_the_input_end_the_worker(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await admin.create_partitions({pipeline.settings.input_topic: NewPartitions(total_count=PARTITIONS + 2)})
    assert await worker.ended() == CONFIG, worker.text()
    error = str(worker.events("consumer.failed")[0]["error"])
    assert "(CC_STATE_TOPIC) has 4 partitions but" in error


async def test_dead_letter_of_a_large_record_has_all_its_bytes(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await configure(admin, pipeline.settings.input_topic, max_message_bytes="8388608")
    value = b"{" + random.Random(1).randbytes(6_000_000)
    async with TrafficWriter(pipeline.settings) as writer:
        await writer.write([Draft(b"k", value, now_ms(), 0, broken=True)])
        await writer.flush()
    await consume_input(pipeline)
    (letter,) = await pipeline.read(pipeline.settings.dead_letters_topic)
    assert (letter.key, letter.value) == (b"k", value)
    assert dict(letter.headers)["cc-reason"] == b"too_large"


async def test_refused_state_commits_no_offset(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    """The broker refuses a state that is too large: the worker ends and its records stay uncommitted."""
    topic = pipeline.settings.state_topic
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await configure(admin, topic, cleanup_policy="compact", max_message_bytes="100")
    await pipeline.write_traffic(traffic(6), COUNT)
    assert await worker.ended() == CONFIG
    assert "max.message.bytes" in str(worker.events("consumer.failed")[0]["error"])
    assert await pipeline.settled_lag() == COUNT
    await configure(admin, topic, cleanup_policy="compact")
    await consume_input(pipeline)
    assert (await pipeline.judge()).records == COUNT


@pytest.mark.parametrize("codec", ["zstd", "snappy", "lz4"])
async def test_input_in_a_missing_codec_ends_the_worker(pipeline: Pipeline, codec: str) -> None:
    """The error names the package to install."""
    producer = AIOKafkaProducer(bootstrap_servers=pipeline.settings.bootstrap_servers, compression_type=codec)
    async with asyncio.timeout(WAIT_S), producer:
        await producer.send_and_wait(pipeline.settings.input_topic, b"{}" * 1_000, partition=0)
    pipeline.change(compression="none")
    worker = await pipeline.start_worker("tests.live.without_codecs")
    assert await worker.ended() == CONFIG, worker.text()
    assert "a codec is not installed: install" in str(worker.events("consumer.failed")[0]["error"])
    assert await pipeline.settled_lag() == 1


async def test_output_in_a_missing_codec_ends_the_worker(pipeline: Pipeline) -> None:
    """The error names the setting."""
    worker = await pipeline.start_worker("tests.live.without_codecs")
    assert await worker.ended() == CONFIG, worker.text()
    assert "CC_COMPRESSION" in str(worker.events("consumer.failed")[0]["error"])


async def test_hostile_values_leave_memory_bounded(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await configure(admin, pipeline.settings.input_topic, max_message_bytes="8388608")
    hostile = [
        b'{"id":"k","participants":[' + b"{}," * 999_999 + b"{}]}",
        b'{"id":"k","participants":[' + b",".join(b'{"id":"p%d"}' % number for number in range(200_000)) + b"]}",
        b'{"id":"k","attributes":"' + b"x" * 4_000_000 + b'"}',
        b'{"id":"k","attributes":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
        b'{"id":"k",' + b'"a":1,' * 600_000 + b'"b":1}',
        random.Random(2).randbytes(8_000_000),
    ]
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    before_bytes = worker.resident_bytes()
    over = asyncio.Event()
    watching = asyncio.create_task(worker.measure_peak_bytes(over))
    async with TrafficWriter(pipeline.settings) as writer:
        for value in hostile * 2:
            await writer.write([Draft(b"k", value, now_ms(), 0, broken=True)])
            await writer.flush()
    await pipeline.caught_up()
    over.set()
    assert await watching - before_bytes < 400_000_000
    letters = await pipeline.read(pipeline.settings.dead_letters_topic)
    dead = Counter(letter.value or b"" for letter in letters)
    assert [dead[value] for value in hostile] == [2, 2, 0, 2, 2, 2]
    assert await worker.end(signal.SIGTERM) == 0


async def test_unusable_input_opens_the_breakers(pipeline: Pipeline) -> None:
    """Lanes stop after too many consecutive dead letters; a restart with other limits consumes the rest."""
    pipeline.change(max_poll_interval_ms=pipeline.settings.session_timeout_ms)

    async def write_unusable(count: int) -> None:
        async with TrafficWriter(pipeline.settings) as writer:
            drafts = (Draft(b"k%d" % number, b"{unusable", now_ms(), number, broken=True) for number in range(count))
            await writer.write(drafts)
            await writer.flush()

    async def read_gauges(worker: WorkerProcess) -> tuple[float, float, int]:
        metrics = await worker.metrics()
        lag, is_open = metrics["conversation_lag_records"], metrics["conversation_breaker_open"]
        return lag, is_open, await worker.ready()

    dead = 50 * PARTITIONS
    await write_unusable(600)
    worker = await pipeline.start_worker()
    opened = await worker.logged("breaker.opened")
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in opened["cause"]
    assert "fix what writes the input topic, then restart" in opened["remedy"]
    async with asyncio.timeout(WAIT_S):
        while len(worker.events("breaker.opened")) < PARTITIONS:
            await asyncio.sleep(0.1)
    assert await pipeline.settled_lag() == 600 - dead
    await write_unusable(100)
    await asyncio.sleep(
        2 + pipeline.settings.max_poll_interval_ms / 1_000
    )  # longer than a consumer may go without a poll
    async with asyncio.timeout(WAIT_S):
        while await read_gauges(worker) != (700 - dead, PARTITIONS, 503):
            await asyncio.sleep(0.2)
    assert worker.events("lane.closed") == []
    assert len(await pipeline.read(pipeline.settings.dead_letters_topic)) == dead
    assert await worker.end(signal.SIGTERM) == 0
    pipeline.change(dead_letters_consecutive_max=10_000, dead_letters_ratio_max=1.0)
    await consume_input(pipeline)
    assert (await pipeline.judge()).dead == 700


async def test_header_name_that_is_not_utf_8_is_tolerated(pipeline: Pipeline) -> None:
    await pipeline.write_traffic(traffic(21), COUNT)
    producer = AIOKafkaProducer(bootstrap_servers=pipeline.settings.bootstrap_servers)
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            batch = producer.create_batch()
            for headers in ([("fine", b"1")], [("mark", b"1")]):
                batch.append(key=b"k", value=b"no JSON", timestamp=None, headers=headers)
            batch.close()
            content = bytearray(batch._build().replace(b"mark", b"\xff\xfe\xfd\xfc"))
            content[17:21] = calc_crc32c(bytes(content[21:])).to_bytes(4, "big")
            batch._buffer = content
            await (await producer.send_batch(batch, pipeline.settings.input_topic, partition=partition))
    finally:
        await producer.stop()
    await pipeline.write_traffic(traffic(21), COUNT, skip=COUNT)
    await consume_input(pipeline)
    assert (await pipeline.judge()).records == 2 * COUNT + 2 * PARTITIONS


async def test_member_without_a_heartbeat_rejoins(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown error code ends aiokafka's heartbeat for good. The member rejoins although no lane fetches.

    The test raises the error itself, as no broker can be made to answer so.
    """
    assigned: list[list[int]] = []

    async def ignore_revocation(_: object) -> None:
        pass

    input_consumer = GroupConsumer(pipeline.settings)
    await input_consumer.start(Listener(lambda partitions: assigned.append(list(partitions)), ignore_revocation))
    try:
        coordinator = input_consumer._consumer._coordinator
        do_heartbeat = coordinator._do_heartbeat

        async def fail_once() -> bool:
            monkeypatch.setattr(coordinator, "_do_heartbeat", do_heartbeat)
            raise KafkaError("unheard of")

        monkeypatch.setattr(coordinator, "_do_heartbeat", fail_once)
        faults: list[ExternalError] = []
        async with asyncio.timeout(WAIT_S):
            while len(assigned) < 2:
                if fault := await input_consumer.fault():
                    faults.append(fault)
                await asyncio.sleep(0.1)
        assert [type(fault) for fault in faults] == [RetriableError]
        assert assigned == [list(range(PARTITIONS))] * 2
    finally:
        await input_consumer.stop()


async def test_membership_is_confirmed_by_the_group(pipeline: Pipeline) -> None:
    async def ignore_revocation(_: object) -> None:
        pass

    input_consumer = GroupConsumer(pipeline.settings)
    await input_consumer.start(Listener(lambda _: None, ignore_revocation))
    try:
        await input_consumer.confirm_membership()
        input_consumer._consumer._coordinator.generation -= 1
        with pytest.raises(RetriableError, match="IllegalGenerationError"):
            await input_consumer.confirm_membership()
    finally:
        await input_consumer.stop()
