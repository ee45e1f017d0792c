"""The topics on a real broker: they are created only on request, and every misconfiguration has a remedy."""

import asyncio
import json
import time
from collections.abc import Mapping

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from click.testing import CliRunner, Result
from confluent_kafka import Consumer
from msgspec.structs import replace

from consumer.cli.check import check
from consumer.cli.exit_codes import CONFIG, OK
from consumer.cli.topics import topics
from consumer.kafka.log_ends import find_log_ends
from consumer.kafka.records import partition_of
from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError
from tests.live.commands import ended, environ_of
from tests.live.conftest import CreateTopics, UniqueName

LETTERS = {"max.message.bytes": "8388608"}
COMPACT = {"cleanup.policy": "compact"}
WITHIN_S = 60
TopicConfigs = dict[str, tuple[int, Mapping[str, str]]]


@pytest.fixture
def settings(kafka: str, unique_name: UniqueName) -> Settings:
    return Settings(
        bootstrap_servers=kafka,
        input_topic=unique_name("in"),
        state_topic=unique_name("state"),
        transitions_topic=unique_name("moves"),
        dead_letters_topic=unique_name("dead"),
    )


def valid_topics(settings: Settings) -> TopicConfigs:
    return {
        settings.input_topic: (3, {}),
        settings.state_topic: (3, COMPACT),
        settings.transitions_topic: (3, {}),
        settings.dead_letters_topic: (3, LETTERS),
    }


async def verify(settings: Settings) -> int:
    async with TopicAdmin(settings) as admin:
        return await admin.verify()


async def list_existing(settings: Settings) -> set[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        await client.start()
        return set(await client.list_topics()) & valid_topics(settings).keys()
    finally:
        await client.close()


async def test_created_topics_are_valid(settings: Settings) -> None:
    async with TopicAdmin(settings) as admin:
        assert await admin.create(3, 1) == list(valid_topics(settings))
        assert await admin.verify() == 3
        topics_by_name = await admin.find()
        assert await admin.create(3, 1) == []
    assert topics_by_name[settings.state_topic].configs["cleanup.policy"] == "compact"
    assert topics_by_name[settings.transitions_topic].configs["cleanup.policy"] == "delete"
    assert topics_by_name[settings.input_topic].configs["cleanup.policy"] == "delete"
    assert (
        int(topics_by_name[settings.dead_letters_topic].configs["max.message.bytes"]) >= settings.dead_letter_bytes_max
    )
    assert {(topic.partitions, topic.replicas) for topic in topics_by_name.values()} == {(3, 1)}


async def test_existing_input_topic_decides_the_partitions(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, {settings.input_topic: (2, {})})
    async with TopicAdmin(settings) as admin:
        assert settings.input_topic not in await admin.create(7, 1)
        assert await admin.verify() == 2


async def test_topics_created_by_hand_are_valid(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, valid_topics(settings))
    assert await verify(settings) == 3


async def test_verification_creates_nothing(settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await verify(settings)
    assert str(raised.value).count("does not exist") == 4
    assert await list_existing(settings) == set()


@pytest.mark.parametrize(
    ("field", "configured", "phrase"),
    [
        ("input_topic", None, "(CC_INPUT_TOPIC) does not exist"),
        ("state_topic", None, "(CC_STATE_TOPIC) does not exist"),
        ("dead_letters_topic", None, "`conversation-consumer topics --create"),
        ("state_topic", (2, COMPACT), "has 2 partitions but"),
        ("transitions_topic", (4, {}), "has 4 partitions but"),
        ("dead_letters_topic", (2, LETTERS), "they must be at least as many"),
        ("state_topic", (3, {}), "--add-config cleanup.policy=compact"),
        (
            "state_topic",
            (3, {"cleanup.policy": "compact,delete"}),
            "cleanup.policy=compact,delete, it has to be compact",
        ),
        ("transitions_topic", (3, COMPACT), "--add-config cleanup.policy=delete"),
        ("input_topic", (3, COMPACT), "--add-config cleanup.policy=delete"),
        (
            "input_topic",
            (3, {"cleanup.policy": "compact,delete"}),
            "cleanup.policy=compact,delete, it has to be delete",
        ),
        ("dead_letters_topic", (3, COMPACT | LETTERS), "--add-config cleanup.policy=delete"),
        (
            "state_topic",
            (3, {**COMPACT, "max.message.bytes": "1000"}),
            "max.message.bytes=1000, below CC_BATCH_BYTES_MAX",
        ),
        ("transitions_topic", (3, {"min.insync.replicas": "2"}), "nothing can be written to it"),
    ],
)
async def test_single_misconfiguration_is_the_only_problem(
    settings: Settings,
    create_topics: CreateTopics,
    field: str,
    configured: tuple[int, Mapping[str, str]] | None,
    phrase: str,
) -> None:
    name = getattr(settings, field)
    configs = valid_topics(settings)
    if configured is None:
        del configs[name]
    else:
        configs[name] = configured
    await create_topics(settings.bootstrap_servers, configs)
    with pytest.raises(ConfigurationError) as raised:
        await verify(settings)
    (problem,) = str(raised.value).splitlines()
    assert problem.startswith(f"topic {name!r} ")
    assert phrase in problem


async def test_dead_letters_may_have_more_partitions(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(
        settings.bootstrap_servers, {**valid_topics(settings), settings.dead_letters_topic: (5, LETTERS)}
    )
    assert await verify(settings) == 3


async def test_all_misconfigurations_are_reported_at_once(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, {settings.input_topic: (3, {}), settings.state_topic: (2, {})})
    with pytest.raises(ConfigurationError) as raised:
        await verify(settings)
    assert len(str(raised.value).splitlines()) == 4


async def test_more_replicas_than_brokers_are_refused(settings: Settings) -> None:
    async with TopicAdmin(settings) as admin:
        with pytest.raises(ConfigurationError) as raised:
            await admin.create(3, 10)
    assert str(raised.value).count("--replication-factor") == 4
    assert await list_existing(settings) == set()


def test_commands_before_and_after_creation(settings: Settings) -> None:
    assert (invoke(check, settings).exit_code, invoke(topics, settings).exit_code) == (CONFIG, CONFIG)
    verifying = invoke(topics, settings)
    assert verifying.stdout.count(" missing ") == 4
    assert verifying.stderr.count("does not exist") == 4
    creating = invoke(topics, settings, "--create", "--partitions", "2")
    assert (creating.exit_code, creating.stdout.count(" created ")) == (OK, 4)
    again = invoke(topics, settings)
    assert (again.exit_code, again.stdout.count(" exists ")) == (OK, 4)
    checking = invoke(check, settings)
    assert checking.exit_code == OK
    lines = [line.split(maxsplit=2) for line in checking.stdout.splitlines()]
    assert [rest for _, check, rest in lines if check == "connection"] == [f"{settings.bootstrap_servers} by PLAINTEXT"]
    assert [rest.split("=")[0] for verdict, check, rest in lines if check == "limits"] == [
        "CC_SESSION_TIMEOUT_MS",
        "transaction timeout (by CC_COMMIT_TIMEOUT_S)",
    ]
    assert [rest for _, check, rest in lines if check == "partitions"] == [
        f"topic {name!r} has 2 partitions" for name in valid_topics(settings)
    ]
    warned = {"brokers", "digests", "replicas", "timestamps", "to"}
    assert {verdict for verdict, check, _ in lines if check not in warned} == {"pass"}


def test_check_only_warns_of_future_timestamps(settings: Settings, create_topics: CreateTopics) -> None:
    configs = {**valid_topics(settings), settings.input_topic: (3, {"message.timestamp.after.max.ms": "86400000"})}

    async def create() -> None:
        await create_topics(settings.bootstrap_servers, configs)

    asyncio.run(create())
    result = invoke(check, settings)
    assert result.exit_code == OK
    assert (
        f"warn  timestamps   topic {settings.input_topic!r} accepts timestamps more than an hour in the future"
        in result.stdout
    )


async def test_compacted_input_is_refused_by_run_and_verify(settings: Settings, create_topics: CreateTopics) -> None:
    """A compacted record looks like one that was never written, so `verify` could not trust any difference."""
    await create_topics(settings.bootstrap_servers, {**valid_topics(settings), settings.input_topic: (3, COMPACT)})
    for command in ("check", "run", "verify"):
        result = await ended(command, environ_of(settings), WITHIN_S)
        assert result.exit_code == CONFIG, result.printed
        assert f"{settings.input_topic!r} (CC_INPUT_TOPIC) has cleanup.policy=compact" in result.printed
    result = await ended("inspect c1 --why", environ_of(settings), WITHIN_S)
    assert "records of this conversation may be gone: topic" in result.printed


async def test_check_reports_conflicts_in_the_group(
    settings: Settings, create_topics: CreateTopics, unique_name: UniqueName
) -> None:
    """A member with another assignor, our static id and one more topic; and an offset past the end."""
    settings = replace(settings, group_id=unique_name("group"), group_instance_id="worker-0")
    other = unique_name("other")
    await create_topics(settings.bootstrap_servers, {**valid_topics(settings), other: (1, {})})
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        for _ in range(5):
            await producer.send_and_wait(settings.input_topic, b"{}", partition=1)
    member = AIOKafkaConsumer(
        settings.input_topic, other, bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False,
        group_id=settings.group_id, group_instance_id="worker-0",
        partition_assignment_strategy=(RangePartitionAssignor,),
    )  # fmt: skip
    await member.start()
    try:
        partitions = [TopicPartition(settings.input_topic, partition) for partition in range(3)]
        await member.commit({partitions[0]: 9, partitions[1]: 2})
        async with TopicAdmin(settings) as admin:
            topics_by_name = await admin.find()
            ends = await find_log_ends(settings, range(topics_by_name[settings.input_topic].partitions))
            results = await admin.group(topics_by_name, ends)
    finally:
        await member.stop()
    problems = [(result.check, result.status) for result in results if result.status != "pass"]
    assert problems == [("group", "fail"), ("group", "warn"), ("membership", "warn"), ("offsets", "warn")]
    messages = "\n".join(result.message for result in results)
    assert "by 'range', not by 'roundrobin'" in messages
    assert f"also read {other}" in messages
    assert "a member at 127.0.0.1 has the id 'worker-0'" in messages
    assert "partition 0 at 9, which holds 0 to 0" in messages
    assert "3 offsets to read of 5" in messages


async def test_check_reports_members_of_the_newer_protocol(
    settings: Settings, create_topics: CreateTopics, unique_name: UniqueName
) -> None:
    """A broker shares the partitions among members of both protocols, and describes none of them as before."""
    settings = replace(settings, group_id=unique_name("group"))
    await create_topics(settings.bootstrap_servers, valid_topics(settings))
    other = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group_id, "group.protocol": "consumer"}
    )
    member = AIOKafkaConsumer(
        settings.input_topic, bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False,
        group_id=settings.group_id, partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )  # fmt: skip
    other.subscribe([settings.input_topic])
    try:
        async with asyncio.timeout(WITHIN_S):
            while not other.assignment():
                await asyncio.to_thread(other.poll, 0.1)
            await member.start()
            while not member.assignment():
                await asyncio.to_thread(other.poll, 0.1)
        async with TopicAdmin(settings) as admin:
            topics_by_name = await admin.find()
            result, *_ = await admin.group(topics_by_name, await find_log_ends(settings, range(3)))
    finally:
        await member.stop()
        await asyncio.to_thread(other.close)
    assert result.status == "fail"
    assert "the newer protocol (group.protocol=consumer), at 127.0.0.1: no workers" in result.message


async def test_check_says_what_the_relay_does(settings: Settings, create_topics: CreateTopics) -> None:
    """It reads the newest records of each partition, past what a transaction has aborted."""
    await create_topics(settings.bootstrap_servers, valid_topics(settings))
    body = {"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1", "state": "connected"}]}]}
    value = json.dumps(
        {"schema": None, "payload": {"topicName": "v2.users.u.conversations", "eventBody": body}}
    ).encode()
    home = partition_of(b"c1", 3)
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id="relay") as producer:
        async with producer.transaction():
            for _ in range(120):
                await producer.send(settings.input_topic, value, b'"c1"', partition=home)
            await producer.send(settings.input_topic, b"broken", b"c2", partition=(home + 1) % 3)
        await producer.begin_transaction()
        await producer.send_and_wait(settings.input_topic, b"aborted", b"c3", partition=home)
        await producer.abort_transaction()
    result = await ended("check --json", environ_of(settings), WITHIN_S)
    assert result.exit_code == OK, result.printed
    said = [line for line in map(json.loads, result.printed.splitlines()) if line["check"] == "relay"]
    read = 100 - 3  # of the newest 100 offsets of a partition, less an aborted record and two markers
    assert [(line["status"], line["message"]) for line in said] == [
        ("warn", f"of the newest {read + 1} records not all can be used: {read} updates, 1 dead letters (1 bad_json)"),
        ("pass", f"of {read} updates have frames, which cost CPU: {read} connect"),
        ("pass", f"keys are {read} key_text, in the partitions of Kafka's own partitioner"),
        ("pass", "all records have a timestamp"),
    ]
    assert f"see partition {(home + 1) % 3}, offset 0: bad_json" in said[0]["remedy"]


def invoke(command: object, settings: Settings, *arguments: str) -> Result:
    return CliRunner(env=environ_of(settings)).invoke(command, arguments)  # type: ignore[arg-type]


async def test_check_reports_transactions_open_too_long(
    settings: Settings, create_topics: CreateTopics, unique_name: UniqueName
) -> None:
    """The remedy is the command that aborts them. Transactions that are young or ended are not reported."""
    await create_topics(settings.bootstrap_servers, valid_topics(settings))

    async def run_check() -> list[dict[str, str]]:
        lines = (await asyncio.to_thread(invoke, check, settings, "--json")).stdout.splitlines()
        return [result for result in map(json.loads, lines) if result["check"] == "transactions"]

    assert [result["status"] for result in await run_check()] == ["pass"]
    long_ago_ms = int((time.time() - 3_600) * 1_000)
    hanging = ((settings.input_topic, 1), (settings.state_topic, 2))
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=unique_name("t"))
    async with asyncio.timeout(60), producer:
        await producer.begin_transaction()
        for topic, partition in hanging:
            await producer.send_and_wait(topic, b"{}", key=b"c", partition=partition, timestamp_ms=long_ago_ms)
        await producer.send_and_wait(settings.transitions_topic, b"{}", partition=0)
        results = await run_check()
        assert [result["status"] for result in results] == ["warn", "warn"]
        for result, (topic, partition) in zip(results, hanging, strict=True):
            assert f"partition {partition} of topic {topic!r}" in result["message"]
            assert "open since offset 0" in result["message"]
            assert f"abort --topic {topic} --partition {partition} --start-offset 0" in result["remedy"]
        await producer.abort_transaction()
    assert [result["status"] for result in await run_check()] == ["pass"]
