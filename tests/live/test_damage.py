"""What happens to topics behind the worker's back: it goes on where it may, else it ends and says what to do."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError
from aiokafka.record.util import calc_crc32c

from consumer.adapters.kafka.group import GroupIntake, Listener
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.adapters.kafka.writer import KafkaWriter
from consumer.runtime.ports import Unreachable, WorldError
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft, Traffic
from tests.live.commands import WAIT_S
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, WorkerProcess, now_ms

pytestmark = pytest.mark.kafka

COUNT = 1_000
MISFIT = 78


@pytest.fixture
async def pipeline(kafka: str, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    made = Pipeline(kafka, unique_name("p"), tmp_path, dead_letters_consecutive_max=50)
    await made.create()
    yield made
    await made.close()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await asyncio.wait_for(client.start(), WAIT_S)
    yield client
    await client.close()


async def configured(admin: AIOKafkaAdminClient, topic: str, **changed: str) -> None:
    """Configure a topic, and wait until its partitions are kept by it.

    A broker describes a change before it heeds it, but takes in one change after the other: once a second one, sent
    after the first was described, is described as well, the first is heeded.
    """
    wanted = {"max.message.bytes": "1048588"} | {name.replace("_", "."): value for name, value in changed.items()}
    for delay_ms in ("60001", "60002"):
        wanted["file.delete.delay.ms"] = delay_ms
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        async with asyncio.timeout(WAIT_S):
            while not wanted.items() <= (await described(admin, topic)).items():
                await asyncio.sleep(0.02)


async def described(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """A topic's settings."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((*_, settings),) = answer.resources
    return {name: value for name, value, *_ in settings}


def traffic(seed: int, broken: float = 0.01) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), conversations=50, broken=broken)


async def worked_off(pipeline: Pipeline) -> None:
    """Let a worker consume everything and end."""
    worker = await pipeline.start_worker()
    await opened(worker)
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0


async def opened(worker: WorkerProcess) -> None:
    """Wait until a worker has opened all lanes."""
    async with asyncio.timeout(WAIT_S):
        while len(worker.events("lane.opened")) < PARTITIONS:
            await asyncio.sleep(0.05)


async def joined_otherwise(settings: Settings) -> AIOKafkaConsumer:
    """A member of the workers' group that shares out partitions in another way, as soon as none of them is in it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            consumer = AIOKafkaConsumer(
                settings.input_topic,
                bootstrap_servers=settings.bootstrap_servers,
                group_id=settings.group_id,
                partition_assignment_strategy=(RangePartitionAssignor,),
                enable_auto_commit=False,
            )
            try:
                await consumer.start()
            except InconsistentGroupProtocolError:
                await consumer.stop()
                await asyncio.sleep(0.5)
            else:
                return consumer


async def peak_bytes(worker: WorkerProcess, over: asyncio.Event) -> int:
    """The largest resident size of a worker until the event."""
    peak = 0
    while not over.is_set():
        peak = max(peak, worker.resident_bytes())
        await asyncio.sleep(0.02)
    return peak


async def misfit(pipeline: Pipeline) -> str:
    """What a worker says that cannot start."""
    worker = await pipeline.start_worker()
    assert await worker.ended() == MISFIT, worker.text()
    return str(worker.events("consumer.failed")[0]["error"])


async def test_a_state_topic_made_anew_is_refused_and_can_be_rebuilt(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    settings = pipeline.settings
    await pipeline.feed(traffic(1), COUNT)
    await worked_off(pipeline)
    before = await pipeline.judge()
    await admin.delete_topics([settings.state_topic])
    assert "(CC_STATE_TOPIC) does not exist" in await misfit(pipeline)
    async with TopicAdmin(settings) as topics:
        await topics.create(PARTITIONS, 1)
    assert "--reset-offsets" in await misfit(pipeline)
    await pipeline.reset_offsets()
    await worked_off(pipeline)
    assert await pipeline.states() == before.states


async def test_a_truncated_state_topic_is_refused(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await pipeline.feed(traffic(2), COUNT)
    await worked_off(pipeline)
    partitions = [TopicPartition(pipeline.settings.state_topic, each) for each in range(PARTITIONS)]
    for policy in ("compact,delete", "compact"):
        await configured(admin, pipeline.settings.state_topic, cleanup_policy=policy)
        if policy == "compact,delete":
            await admin.delete_records({each: RecordsToDelete(before_offset=20) for each in partitions})
    assert "the topic was truncated" in await misfit(pipeline)


async def test_a_committed_offset_that_is_older_than_the_state_is_not_begun_from(pipeline: Pipeline) -> None:
    """As a coordinator may tell for a while that was killed together with its replicas."""
    await pipeline.feed(traffic(21), COUNT)
    await worked_off(pipeline)
    older = await pipeline.committed()
    await pipeline.feed(traffic(22), COUNT)
    await worked_off(pipeline)
    newest = await pipeline.committed()
    await pipeline.reset_offsets(older)
    retry_s_max = pipeline.settings.retry_s_max
    pipeline.change(retry_s_max=3)
    assert "this is not the newest" in await misfit(pipeline)
    await pipeline.reset_offsets(newest)
    pipeline.change(retry_s_max=retry_s_max)
    await worked_off(pipeline)
    await pipeline.judge()


async def test_records_that_retention_took_are_told_and_the_rest_is_consumed(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    await pipeline.feed(traffic(3), COUNT)
    await worked_off(pipeline)
    await pipeline.feed(traffic(4), COUNT)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await admin.delete_records({each: RecordsToDelete(before_offset=end - 5) for each, end in ends.items()})
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert len(worker.events("lane.offset_reset")) == PARTITIONS
    assert (await worker.metrics())["conversation_records_total"] == 5 * PARTITIONS
    assert await worker.end(signal.SIGTERM) == 0


async def test_records_that_retention_takes_from_a_running_worker_are_told_too(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    worker = await pipeline.start_worker()
    await pipeline.feed(traffic(7), COUNT)
    await pipeline.caught_up()
    worker.send(signal.SIGSTOP)
    await pipeline.feed(traffic(8), COUNT)  # as much of it as one answer holds is on its way to the worker
    await pipeline.feed(traffic(9), COUNT)
    ends = await pipeline.ends(pipeline.settings.input_topic)
    await admin.delete_records({each: RecordsToDelete(before_offset=end - 5) for each, end in ends.items()})
    worker.send(signal.SIGCONT)
    await pipeline.caught_up()
    assert {each["partition"] for each in worker.events("lane.offset_reset")} == set(range(PARTITIONS))
    assert await worker.end(signal.SIGTERM) == 0


async def test_an_offset_past_the_end_begins_anew_and_changes_nothing(pipeline: Pipeline) -> None:
    await pipeline.feed(traffic(10, broken=0.0), COUNT)
    await worked_off(pipeline)
    before = await pipeline.judge()
    await pipeline.reset_offsets(10**9)
    worker = await pipeline.start_worker()
    await worker.logged("lane.offset_reset")
    async with asyncio.timeout(WAIT_S):
        while (await worker.metrics())["conversation_records_total"] < COUNT:
            await asyncio.sleep(0.1)
    assert await worker.end(signal.SIGTERM) == 0
    assert (await pipeline.judge()).operations == before.operations


async def test_an_offset_in_a_transaction_that_is_open_is_waited_at(pipeline: Pipeline) -> None:
    """Where `--to-latest` puts it. What is written there afterwards is all that is consumed."""
    await pipeline.feed(traffic(22, broken=0.0), COUNT)
    settings = pipeline.settings
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id)
    async with asyncio.timeout(WAIT_S), producer:
        await producer.begin_transaction()
        for partition in range(PARTITIONS):
            await producer.send_and_wait(settings.input_topic, b"no JSON", partition=partition)
        stable = await pipeline.ends(settings.input_topic)
        await pipeline.reset_offsets({each: end + 1 for each, end in stable.items()})
        worker = await pipeline.start_worker()
        await opened(worker)
        await producer.abort_transaction()
    await pipeline.feed(traffic(23, broken=0.0), COUNT)
    await pipeline.caught_up()
    assert (await worker.metrics())["conversation_records_total"] == COUNT
    assert not worker.events("lane.offset_reset", "lane.failed")
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_state_topic_deleted_under_a_running_worker_ends_it_and_can_be_rebuilt(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    pipeline.change(retry_s_max=8.0, commit_timeout_s=2.0, request_timeout_ms=2_000)
    worker = await pipeline.start_worker()
    await pipeline.feed(traffic(11), COUNT)
    await pipeline.caught_up()
    await admin.delete_topics([pipeline.settings.state_topic])
    await pipeline.feed(traffic(12), COUNT)
    assert await worker.ended() == MISFIT, worker.text()
    assert "CC_RETRY_S_MAX" in str(worker.events("consumer.failed")[0]["error"])
    assert "(CC_STATE_TOPIC) does not exist" in await misfit(pipeline)
    async with TopicAdmin(pipeline.settings) as topics:
        await topics.create(PARTITIONS, 1)
    assert "--reset-offsets" in await misfit(pipeline)
    await pipeline.reset_offsets()
    await worked_off(pipeline)
    assert not [each for each in (await pipeline.compare()).mismatches if "state of" in each]


async def test_a_state_topic_made_anew_under_a_running_worker_ends_it(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    worker = await pipeline.start_worker()
    await pipeline.feed(traffic(13), COUNT)
    await pipeline.caught_up()
    await admin.delete_topics([pipeline.settings.state_topic])
    async with TopicAdmin(pipeline.settings) as topics:
        await topics.create(PARTITIONS, 1)
    await pipeline.feed(traffic(14), COUNT)
    assert await worker.ended() == MISFIT, worker.text()
    assert "made anew" in str(worker.events("consumer.failed")[0]["error"])
    assert "--reset-offsets" in await misfit(pipeline)


async def test_wrong_settings_of_the_state_topic_under_a_running_worker_lose_nothing(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    topic = pipeline.settings.state_topic
    worker = await pipeline.start_worker()
    await pipeline.feed(traffic(15), COUNT)
    await pipeline.caught_up()
    await configured(admin, topic, cleanup_policy="delete", max_message_bytes="900000")
    await pipeline.feed(traffic(16), COUNT)
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    assert "has cleanup.policy=delete, it has to be compact" in await misfit(pipeline)
    await configured(admin, topic, cleanup_policy="compact")
    await worked_off(pipeline)
    assert (await pipeline.judge()).records == 2 * COUNT


async def test_records_and_states_larger_than_a_fetch_are_read(pipeline: Pipeline) -> None:
    pipeline.change(partition_fetch_bytes_max=1)
    await pipeline.feed(traffic(17), 200)
    for _ in range(2):
        await worked_off(pipeline)
    assert (await pipeline.judge()).records == 200


async def test_partitions_added_to_the_input_end_the_worker_with_the_remedy(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await admin.create_partitions({pipeline.settings.input_topic: NewPartitions(total_count=PARTITIONS + 2)})
    assert await worker.ended() == MISFIT, worker.text()
    told = str(worker.events("consumer.failed")[0]["error"])
    assert "(CC_STATE_TOPIC) has 4 partitions but" in told


async def test_a_record_larger_than_a_fetch_becomes_a_dead_letter_with_all_its_bytes(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    await configured(admin, pipeline.settings.input_topic, max_message_bytes="8388608")
    value = b"{" + random.Random(1).randbytes(6_000_000)
    async with KafkaWriter(pipeline.settings) as writer:
        await writer.write([Draft(b"k", value, now_ms(), 0, broken=True)])
        await writer.flush()
    await worked_off(pipeline)
    (letter,) = await pipeline.read(pipeline.settings.dead_letters_topic)
    assert (letter.key, letter.value) == (b"k", value)
    assert dict(letter.headers)["cc-reason"] == b"too_large"


async def test_a_state_that_the_broker_refuses_is_never_followed_by_its_offset(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    topic = pipeline.settings.state_topic
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    await configured(admin, topic, cleanup_policy="compact", max_message_bytes="100")
    await pipeline.feed(traffic(6), COUNT)
    assert await worker.ended() == MISFIT
    assert "max.message.bytes" in str(worker.events("consumer.failed")[0]["error"])
    assert await pipeline.lag() == COUNT
    await configured(admin, topic, cleanup_policy="compact")
    await worked_off(pipeline)
    assert (await pipeline.judge()).records == COUNT


@pytest.mark.parametrize("codec", ["zstd", "snappy", "lz4"])
async def test_a_topic_in_a_codec_that_is_not_installed_ends_the_worker_with_the_remedy(
    pipeline: Pipeline, codec: str
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=pipeline.settings.bootstrap_servers, compression_type=codec)
    async with asyncio.timeout(WAIT_S), producer:
        await producer.send_and_wait(pipeline.settings.input_topic, b"{}" * 1_000, partition=0)
    pipeline.change(compression="none")
    worker = await pipeline.start_worker("tests.live.without_codecs")
    assert await worker.ended() == MISFIT, worker.text()
    assert "a codec is not installed: install" in str(worker.events("consumer.failed")[0]["error"])
    assert await pipeline.lag() == 1


async def test_output_in_a_codec_that_is_not_installed_ends_the_worker_with_the_remedy(pipeline: Pipeline) -> None:
    worker = await pipeline.start_worker("tests.live.without_codecs")
    assert await worker.ended() == MISFIT, worker.text()
    assert "CC_COMPRESSION" in str(worker.events("consumer.failed")[0]["error"])


async def test_hostile_values_leave_memory_bounded(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await configured(admin, pipeline.settings.input_topic, max_message_bytes="8388608")
    hostile = [
        b'{"id":"k","participants":[' + b"{}," * 999_999 + b"{}]}",
        b'{"id":"k","participants":[' + b",".join(b'{"id":"p%d"}' % each for each in range(200_000)) + b"]}",
        b'{"id":"k","attributes":"' + b"x" * 4_000_000 + b'"}',
        b'{"id":"k","attributes":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
        b'{"id":"k",' + b'"a":1,' * 600_000 + b'"b":1}',
        random.Random(2).randbytes(8_000_000),
    ]
    worker = await pipeline.start_worker()
    await worker.logged("lane.opened")
    before_bytes = worker.resident_bytes()
    over = asyncio.Event()
    watching = asyncio.create_task(peak_bytes(worker, over))
    async with KafkaWriter(pipeline.settings) as writer:
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


async def test_a_topic_of_rubbish_blocks_the_lane_and_a_restart_goes_on_after_the_cause_is_gone(
    pipeline: Pipeline,
) -> None:
    pipeline.change(max_poll_interval_ms=pipeline.settings.session_timeout_ms)

    async def write_rubbish(count: int) -> None:
        async with KafkaWriter(pipeline.settings) as writer:
            drafts = (Draft(b"k%d" % each, b"{rubbish", now_ms(), each, broken=True) for each in range(count))
            await writer.write(drafts)
            await writer.flush()

    async def gauges(worker: WorkerProcess) -> tuple[float, float, int]:
        metrics = await worker.metrics()
        lag, is_open = metrics["conversation_lag_records"], metrics["conversation_breaker_open"]
        return lag, is_open, await worker.ready()

    dead = 50 * PARTITIONS
    await write_rubbish(600)
    worker = await pipeline.start_worker()
    opened = await worker.logged("breaker.opened")
    assert "CC_DEAD_LETTERS_CONSECUTIVE_MAX" in opened["cause"]
    assert "mend what writes the input topic, then restart" in opened["todo"]
    async with asyncio.timeout(WAIT_S):
        while len(worker.events("breaker.opened")) < PARTITIONS:
            await asyncio.sleep(0.1)
    assert await pipeline.lag() == 600 - dead
    await write_rubbish(100)
    await asyncio.sleep(2 + pipeline.settings.max_poll_interval_ms / 1_000)  # nothing is fetched for longer than that
    async with asyncio.timeout(WAIT_S):
        while await gauges(worker) != (700 - dead, PARTITIONS, 503):
            await asyncio.sleep(0.2)
    assert worker.events("lane.closed") == []
    assert len(await pipeline.read(pipeline.settings.dead_letters_topic)) == dead
    assert await worker.end(signal.SIGTERM) == 0
    pipeline.change(dead_letters_consecutive_max=10_000, dead_letters_ratio_max=1.0)
    await worked_off(pipeline)
    assert (await pipeline.judge()).dead == 700


async def test_a_record_with_a_header_name_that_is_no_utf_8_is_one_like_any_other(pipeline: Pipeline) -> None:
    await pipeline.feed(traffic(21), COUNT)
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
    await pipeline.feed(traffic(21), COUNT, skip=COUNT)
    await worked_off(pipeline)
    assert (await pipeline.judge()).records == 2 * COUNT + 2 * PARTITIONS


async def test_a_worker_that_the_group_does_not_take_back_ends_with_the_remedy(pipeline: Pipeline) -> None:
    """While it was silent, somebody else used its group in another way. It has no lane left that would notice."""
    settings = pipeline.settings
    worker = await pipeline.start_worker()
    await opened(worker)
    worker.send(signal.SIGSTOP)
    stranger = await joined_otherwise(settings)
    try:
        worker.send(signal.SIGCONT)
        assert await worker.ended() == MISFIT, worker.text()
    finally:
        await stranger.stop()
    assert "used by another kind of consumer" in str(worker.events("consumer.failed")[0]["error"])


async def test_workers_that_share_a_static_id_end_with_the_remedy_and_lose_nothing(pipeline: Pipeline) -> None:
    """Neither is put out for good, so each takes all partitions from the other with every heartbeat."""
    pipeline.change(group_instance_id="the-same")
    twins = [await pipeline.start_worker()]
    await opened(twins[0])  # two that join at the very same time get an answer from the broker that says nothing
    twins.append(await pipeline.start_worker())
    await pipeline.feed(traffic(24), COUNT)
    ended = [asyncio.ensure_future(worker.ended()) for worker in twins]
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    for worker in twins:
        if worker.exit_code is None:
            worker.send(signal.SIGTERM)
    assert {await each for each in ended} <= {MISFIT, 0}
    told = [each["error"] for worker in twins for each in worker.events("consumer.failed")]
    assert "'the-same' (CC_GROUP_INSTANCE_ID): give each its own" in told[0]
    pipeline.change(group_instance_id="")
    await worked_off(pipeline)
    assert (await pipeline.judge()).records == COUNT


async def test_a_member_whose_heartbeat_ended_joins_again_without_a_lane_that_fetches(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that aiokafka does not know ends its heartbeat for good; no broker gives one when asked to."""
    assigned: list[list[int]] = []

    async def revoked(_: object) -> None:
        pass

    intake = GroupIntake(pipeline.settings)
    await intake.start(Listener(lambda partitions: assigned.append(list(partitions)), revoked))
    try:
        coordinator = intake._consumer._coordinator
        beat = coordinator._do_heartbeat

        async def failing() -> bool:
            monkeypatch.setattr(coordinator, "_do_heartbeat", beat)
            raise KafkaError("unheard of")

        monkeypatch.setattr(coordinator, "_do_heartbeat", failing)
        faults: list[WorldError] = []
        async with asyncio.timeout(WAIT_S):
            while len(assigned) < 2:
                if fault := await intake.fault():
                    faults.append(fault)
                await asyncio.sleep(0.1)
        assert [type(fault) for fault in faults] == [Unreachable]
        assert assigned == [list(range(PARTITIONS))] * 2
    finally:
        await intake.stop()


async def test_the_group_says_whether_a_worker_is_a_member(pipeline: Pipeline) -> None:
    async def revoked(_: object) -> None:
        pass

    intake = GroupIntake(pipeline.settings)
    await intake.start(Listener(lambda _: None, revoked))
    try:
        await intake.confirm_membership()
        intake._consumer._coordinator.generation -= 1
        with pytest.raises(Unreachable, match="IllegalGenerationError"):
            await intake.confirm_membership()
    finally:
        await intake.stop()
