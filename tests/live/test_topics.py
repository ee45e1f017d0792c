"""The topics on a real broker: made only when asked to, and every way not to fit is told with what to do."""

import asyncio
from collections.abc import Mapping

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner, Result

from consumer.adapters.kafka_topics import TopicAdmin
from consumer.cli.check import check
from consumer.cli.exits import CONFIG, OK
from consumer.cli.topics import topics
from consumer.runtime.ports import Misfit
from consumer.runtime.settings import Settings
from tests.live.conftest import CreateTopics, UniqueName

pytestmark = pytest.mark.kafka

LETTERS = {"max.message.bytes": "8388608"}
COMPACT = {"cleanup.policy": "compact"}
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
    assert checking.stdout.splitlines()[:4] == [
        "ok       settings",
        f"ok       broker {settings.bootstrap_servers}",
        "ok       permissions",
        "ok       topics: 2 input partitions, all four fit",
    ]


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
        f"warning  topic {settings.input_topic!r} accepts timestamps more than an hour in the future" in result.stdout
    )


def invoke(command: object, settings: Settings, *arguments: str) -> Result:
    names = ("bootstrap_servers", "input_topic", "state_topic", "transitions_topic", "dead_letters_topic")
    environ = {f"CC_{name.upper()}": getattr(settings, name) for name in names}
    return CliRunner(env=environ).invoke(command, arguments)  # type: ignore[arg-type]
