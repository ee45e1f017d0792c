"""The topics on a real broker: made only when asked to, and every way not to fit is told with what to do."""

import asyncio
import json
import time
from collections.abc import Mapping

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from click.testing import CliRunner, Result
from msgspec.structs import replace

from consumer.adapters.kafka.log_ends import find_log_ends
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.cli.check import check
from consumer.cli.exits import CONFIG, OK
from consumer.cli.topics import topics
from consumer.runtime.ports import Misfit
from consumer.runtime.settings import Settings
from tests.live.commands import ended, environ_of
from tests.live.conftest import CreateTopics, UniqueName

pytestmark = pytest.mark.kafka

LETTERS = {"max.message.bytes": "8388608"}
COMPACT = {"cleanup.policy": "compact"}
WITHIN_S = 60
Made = dict[str, tuple[int, Mapping[str, str]]]


@pytest.fixture
def settings(kafka: str, unique_name: UniqueName) -> Settings:
    return Settings(
        bootstrap_servers=kafka,
        input_topic=unique_name("in"),
        state_topic=unique_name("state"),
        transitions_topic=unique_name("moves"),
        dead_letters_topic=unique_name("dead"),
    )


def fitting(settings: Settings) -> Made:
    return {
        settings.input_topic: (3, {}),
        settings.state_topic: (3, COMPACT),
        settings.transitions_topic: (3, {}),
        settings.dead_letters_topic: (3, LETTERS),
    }


async def verified(settings: Settings) -> int:
    async with TopicAdmin(settings) as admin:
        return await admin.verify()


async def existing(settings: Settings) -> set[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        await client.start()
        return set(await client.list_topics()) & fitting(settings).keys()
    finally:
        await client.close()


async def test_created_topics_are_verified(settings: Settings) -> None:
    async with TopicAdmin(settings) as admin:
        assert await admin.create(3, 1) == list(fitting(settings))
        assert await admin.verify() == 3
        found = await admin.find()
        assert await admin.create(3, 1) == []
    assert found[settings.state_topic].configs["cleanup.policy"] == "compact"
    assert found[settings.transitions_topic].configs["cleanup.policy"] == "delete"
    assert found[settings.input_topic].configs["cleanup.policy"] == "delete"
    assert int(found[settings.dead_letters_topic].configs["max.message.bytes"]) >= settings.dead_letter_bytes_max
    assert {(each.partitions, each.replicas) for each in found.values()} == {(3, 1)}


async def test_an_input_topic_that_exists_decides_the_partitions(
    settings: Settings, create_topics: CreateTopics
) -> None:
    await create_topics(settings.bootstrap_servers, {settings.input_topic: (2, {})})
    async with TopicAdmin(settings) as admin:
        assert settings.input_topic not in await admin.create(7, 1)
        assert await admin.verify() == 2


async def test_topics_made_by_hand_fit(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, fitting(settings))
    assert await verified(settings) == 3


async def test_verifying_creates_nothing(settings: Settings) -> None:
    with pytest.raises(Misfit) as told:
        await verified(settings)
    assert str(told.value).count("does not exist") == 4
    assert await existing(settings) == set()


@pytest.mark.parametrize(
    ("field", "made", "says"),
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
async def test_one_thing_that_does_not_fit_is_the_only_one_told(
    settings: Settings,
    create_topics: CreateTopics,
    field: str,
    made: tuple[int, Mapping[str, str]] | None,
    says: str,
) -> None:
    name = getattr(settings, field)
    wanted = fitting(settings)
    if made is None:
        del wanted[name]
    else:
        wanted[name] = made
    await create_topics(settings.bootstrap_servers, wanted)
    with pytest.raises(Misfit) as told:
        await verified(settings)
    (problem,) = str(told.value).splitlines()
    assert problem.startswith(f"topic {name!r} ")
    assert says in problem


async def test_more_partitions_of_dead_letters_fit(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, {**fitting(settings), settings.dead_letters_topic: (5, LETTERS)})
    assert await verified(settings) == 3


async def test_everything_that_does_not_fit_is_told_at_once(settings: Settings, create_topics: CreateTopics) -> None:
    await create_topics(settings.bootstrap_servers, {settings.input_topic: (3, {}), settings.state_topic: (2, {})})
    with pytest.raises(Misfit) as told:
        await verified(settings)
    assert len(str(told.value).splitlines()) == 4


async def test_more_replicas_than_brokers_are_refused_for_every_topic(settings: Settings) -> None:
    async with TopicAdmin(settings) as admin:
        with pytest.raises(Misfit) as told:
            await admin.create(3, 10)
    assert str(told.value).count("--replication-factor") == 4
    assert await existing(settings) == set()


def test_the_commands_from_nothing_to_fine(settings: Settings) -> None:
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
        "CC_TRANSACTION_TIMEOUT_MS",
    ]
    assert [rest for _, check, rest in lines if check == "partitions"] == [
        f"topic {name!r} has 2 partitions" for name in fitting(settings)
    ]
    assert {verdict for verdict, check, _ in lines if check not in {"brokers", "replicas", "timestamps", "to"}} == {
        "pass"
    }


def test_check_warns_of_timestamps_from_the_future_without_failing(
    settings: Settings, create_topics: CreateTopics
) -> None:
    made = {**fitting(settings), settings.input_topic: (3, {"message.timestamp.after.max.ms": "86400000"})}

    async def create() -> None:
        await create_topics(settings.bootstrap_servers, made)

    asyncio.run(create())
    result = invoke(check, settings)
    assert result.exit_code == OK
    assert (
        f"warn  timestamps   topic {settings.input_topic!r} accepts timestamps more than an hour in the future"
        in result.stdout
    )


async def test_a_compacted_input_is_refused_by_run_and_verify(settings: Settings, create_topics: CreateTopics) -> None:
    """What is gone from it cannot be told from what was never there, so every difference might be none."""
    await create_topics(settings.bootstrap_servers, {**fitting(settings), settings.input_topic: (3, COMPACT)})
    for command in ("check", "run", "verify"):
        told = await ended(command, environ_of(settings), WITHIN_S)
        assert told.exit_code == CONFIG, told.printed
        assert f"{settings.input_topic!r} (CC_INPUT_TOPIC) has cleanup.policy=compact" in told.printed
    told = await ended("inspect c1 --why", environ_of(settings), WITHIN_S)
    assert "records of this conversation may be gone: topic" in told.printed


async def test_check_tells_what_a_worker_will_meet_in_the_group(
    settings: Settings, create_topics: CreateTopics, unique_name: UniqueName
) -> None:
    """A member of another kind, with our id and a topic of its own, and an offset that is not there any more."""
    settings = replace(settings, group_id=unique_name("group"), group_instance_id="worker-0")
    other = unique_name("other")
    await create_topics(settings.bootstrap_servers, {**fitting(settings), other: (1, {})})
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
            found = await admin.find()
            ends = await find_log_ends(settings, range(found[settings.input_topic].partitions))
            findings = await admin.group(found, ends)
    finally:
        await member.stop()
    noticed = [(each.check, each.verdict) for each in findings if each.verdict != "pass"]
    assert noticed == [("group", "fail"), ("group", "warn"), ("membership", "warn"), ("offsets", "warn")]
    told = "\n".join(each.found for each in findings)
    assert "by 'range', not by 'roundrobin'" in told
    assert f"also read {other}" in told
    assert "a member at 127.0.0.1 has the id 'worker-0'" in told
    assert "partition 0 at 9, which holds 0 to 0" in told
    assert "3 offsets to read of 5" in told


def invoke(command: object, settings: Settings, *arguments: str) -> Result:
    return CliRunner(env=environ_of(settings)).invoke(command, arguments)  # type: ignore[arg-type]


async def test_check_reports_transactions_open_too_long(
    settings: Settings, create_topics: CreateTopics, unique_name: UniqueName
) -> None:
    """With the command that ends each; one that may last is nobody's concern, and neither is one that has ended."""
    await create_topics(settings.bootstrap_servers, fitting(settings))

    async def reported() -> list[dict[str, str]]:
        lines = (await asyncio.to_thread(invoke, check, settings, "--json")).stdout.splitlines()
        return [finding for finding in map(json.loads, lines) if finding["check"] == "transactions"]

    assert [finding["verdict"] for finding in await reported()] == ["pass"]
    long_ago_ms = int((time.time() - 3_600) * 1_000)
    hanging = ((settings.input_topic, 1), (settings.state_topic, 2))
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=unique_name("t"))
    async with asyncio.timeout(60), producer:
        await producer.begin_transaction()
        for topic, partition in hanging:
            await producer.send_and_wait(topic, b"{}", key=b"c", partition=partition, timestamp_ms=long_ago_ms)
        await producer.send_and_wait(settings.transitions_topic, b"{}", partition=0)
        findings = await reported()
        assert [finding["verdict"] for finding in findings] == ["warn", "warn"]
        for finding, (topic, partition) in zip(findings, hanging, strict=True):
            assert f"partition {partition} of topic {topic!r}" in finding["found"]
            assert "open since offset 0" in finding["found"]
            assert f"abort --topic {topic} --partition {partition} --start-offset 0" in finding["remedy"]
        await producer.abort_transaction()
    assert [finding["verdict"] for finding in await reported()] == ["pass"]
