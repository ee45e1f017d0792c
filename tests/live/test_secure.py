"""The main job over secure connections: with the permissions that are listed and no more, and under credentials that
change while it runs."""

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaError

from consumer.adapters.kafka.permissions import GROUP, TOPIC, Grant, grants
from consumer.adapters.kafka.publisher import TransactionalPublisher
from consumer.adapters.kafka.topics import TopicAdmin
from consumer.cli.service import running
from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Traffic
from tests.live.authority import Authority
from tests.live.commands import WAIT_S, ended, environ_of
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline, WorkerProcess, now_ms
from tests.live.secure_broker import SecureBroker
from tests.live.tokens import put

pytestmark = pytest.mark.kafka

COUNT = 3_000
OK, CONFIG = 0, 78
PASSWORD = "hunter2-password"
EXPIRED = "the broker refused the token of CC_SASL_OAUTH_TOKEN_FILE: it expired at 2"
READ = ("Read", "DescribeConfigs")
Secured = Callable[..., Pipeline]


@pytest.fixture
async def pipeline(secure_broker: SecureBroker, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """The topics, seen by the tests, who may do everything."""
    made = Pipeline(secure_broker.bootstrap_servers, unique_name("p"), tmp_path)
    await made.create()
    yield made
    await made.close()


@pytest.fixture
async def secured(pipeline: Pipeline, secure_broker: SecureBroker, tmp_path: Path) -> AsyncIterator[Secured]:
    """A maker of the same pipeline for workers, who have to get in."""
    made: list[Pipeline] = []

    def make(name: str | None = None, **settings: Any) -> Pipeline:
        (folder := tmp_path / f"secured-{len(made)}").mkdir()
        made.append(
            Pipeline(
                secure_broker.sasl, name or pipeline.settings.group_id, folder, security_protocol="SASL_SSL",
                ssl_ca_file=str(secure_broker.authority.ca_file), **settings,
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for each in made:
        await each.close()


def traffic(seed: int) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), disorder=0.2, duplicates=0.1, broken=0.01, conversations=100)


def new_user(broker: SecureBroker) -> str:
    user = f"user-{uuid.uuid4().hex}"
    broker.add_user(user, PASSWORD)
    return user


async def test_exactly_once_with_the_permissions_that_are_listed(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker
) -> None:
    """Handed over from one worker to another, until one of the permissions is taken away."""
    user = new_user(secure_broker)
    workers = secured(sasl_username=user, sasl_password=PASSWORD)
    needed = grants(workers.settings)
    secure_broker.allow(user, needed)
    await pipeline.feed(traffic(1), COUNT)
    checked = await ended("check", environ_of(workers.settings))
    assert checked.exit_code == OK, checked.printed
    first = await workers.start_worker()
    await first.logged("lane.opened")
    assert await first.end(signal.SIGTERM) == OK
    second = await workers.start_worker()
    await pipeline.caught_up()
    judged = await pipeline.judge()
    assert (judged.records, judged.dead > 0) == (COUNT, True)
    secure_broker.forbid(user, next(each for each in needed if each.setting == "CC_TRANSITIONS_TOPIC"))
    await pipeline.feed(traffic(2), 500)
    assert await second.ended() == CONFIG
    told = second.events("consumer.failed")[0]["error"]
    assert "a permission is missing: grant the service's user (CC_SASL_USERNAME" in told
    assert "Write on the state, transitions and dead letters topics" in told
    assert PASSWORD not in checked.printed + first.text() + second.text()


async def test_each_permission_that_is_listed_is_needed(
    secure_broker: SecureBroker, unique_name: UniqueName, tmp_path: Path
) -> None:
    """Without it `check` names it, and the service without a check fails when it comes to use it.

    DescribeConfigs is for the check alone: it tells whether the topics are such that the promises can be kept. Outputs
    are read to find out how a transaction ended of which brokers lost the end, which is not the case here.
    """
    async with asyncio.TaskGroup() as tasks:
        count = 0
        for index, grant in enumerate(grants(Settings(bootstrap_servers=""))):
            for operation in grant.operations:
                count += 1
                name = unique_name(f"{index}-{operation}")
                tasks.create_task(
                    _without(operation, index, Pipeline(secure_broker.bootstrap_servers, name, tmp_path), secure_broker)
                )
    assert count == 13


async def _without(operation: str, index: int, pipeline: Pipeline, broker: SecureBroker) -> None:
    user = new_user(broker)
    await pipeline.create()
    await pipeline.feed(Traffic(seed=3, start_ms=now_ms(), conversations=20, broken=0.2), 200)
    settings = msgspec.structs.replace(
        pipeline.settings, bootstrap_servers=broker.sasl, security_protocol="SASL_SSL", sasl_username=user,
        sasl_password=PASSWORD, ssl_ca_file=str(broker.authority.ca_file), admin_port=0, query_port=0,
    )  # fmt: skip
    needed = grants(settings)
    lacking = needed[index]
    if (operation, lacking.setting) == ("Read", "CC_STATE_TOPIC"):  # an empty one is not read
        pipeline.change(input_topic=settings.state_topic)
        await pipeline.feed(Traffic(seed=3, start_ms=now_ms(), conversations=20), 20)
    rest = tuple(each for each in lacking.operations if each != operation)
    needed[index] = Grant(lacking.resource, lacking.name, lacking.setting, rest, lacking.is_prefix)
    broker.allow(user, needed)
    with pytest.raises(Misfit) as told:
        async with TopicAdmin(settings) as admin:
            await admin.verify()
    (problem,) = str(told.value).splitlines()
    assert f"{lacking.name!r} ({lacking.setting}): " in problem
    assert f" --operation {operation} " in problem
    is_for_repair = (operation, lacking.setting) in {
        ("Read", "CC_TRANSITIONS_TOPIC"),
        ("Read", "CC_DEAD_LETTERS_TOPIC"),
    }
    if operation != "DescribeConfigs" and not is_for_repair:
        error = await _failure(settings)
        assert "a permission is missing: grant" in str(error), f"{operation} on {lacking.name!r}"


async def _failure(settings: Settings) -> Misfit | None:
    """What ends a worker, None if nothing does."""
    try:
        async with asyncio.timeout(WAIT_S), running(settings) as service:
            await service.worker.failure()
    except Misfit as error:
        return error
    except TimeoutError:
        pass
    return None


async def test_a_token_is_read_anew_for_every_connection(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """The broker ends each connection with its token. A token that is not renewed in time is waited for."""
    user, file = f"user-{uuid.uuid4().hex}", tmp_path / "token"
    workers = secured(sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file=str(file))
    secure_broker.allow(user, grants(workers.settings))

    async def renew(lifetime_s: float, every_s: float) -> None:
        while True:
            put(file, secure_broker.tokens.token(user, lifetime_s))
            await asyncio.sleep(every_s)

    renewing = asyncio.create_task(renew(3, 1))
    await asyncio.sleep(0)
    worker = await workers.start_worker()
    await worker.logged("lane.opened")
    for part in range(3):
        await pipeline.feed(traffic(4), 500, skip=500 * part)
        await asyncio.sleep(1.5)
    await pipeline.caught_up()
    renewing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewing
    put(file, secure_broker.tokens.token(user, -1))
    await pipeline.feed(traffic(4), 500, skip=1_500)
    await _connected_becomes(worker, 0)
    async with asyncio.timeout(WAIT_S):
        while not any(EXPIRED in line["error"] for line in worker.events("group.disconnected")):
            await asyncio.sleep(0.2)
    put(file, secure_broker.tokens.token(user, 600))
    await pipeline.caught_up()
    await _connected_becomes(worker, 1)
    assert await worker.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 2_000
    assert "eyJ" not in worker.text()


async def _connected_becomes(worker: WorkerProcess, expected: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await worker.metrics())["conversation_connected"] != expected:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("password", Misfit, "CC_SASL_PASSWORD"),
        ("authority", Unreachable, "CC_SSL_CA_FILE"),
        ("expired token", Unreachable, "CC_SASL_OAUTH_TOKEN_FILE: it expired"),
        ("refused token", Unreachable, "CC_SASL_OAUTH_TOKEN_FILE: check"),
        ("no token", Unreachable, "CC_SASL_OAUTH_TOKEN_FILE: cannot use"),
    ],
)
async def test_while_running_what_new_files_mend_is_tried_again_and_a_password_is_not(
    fault: str,
    kind: type[WorldError],
    says: str,
    secured: Secured,
    secure_broker: SecureBroker,
    tmp_path: Path,
) -> None:
    """The password was read at the start: there is no other that the process could try."""
    token = tmp_path / "token"
    if "token" in fault:
        settings = secured(sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file=str(token)).settings
    else:
        settings = secured(sasl_username=new_user(secure_broker), sasl_password=PASSWORD).settings
    match fault:
        case "password":
            secure_broker.add_user(settings.sasl_username, "another")
        case "authority":
            stranger = Authority(tmp_path, "stranger").ca_file
            settings = msgspec.structs.replace(settings, ssl_ca_file=str(stranger))
        case "expired token":
            put(token, secure_broker.tokens.token("user", -60))
        case "refused token":
            put(token, secure_broker.tokens.token("user", 600, audience="others"))
    publisher = TransactionalPublisher(settings, 0)
    try:
        with pytest.raises(kind, match=says):
            await publisher.open()
    finally:
        await publisher.close()


async def test_a_broker_that_was_away_is_waited_for_but_a_password_that_was_changed_is_not(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """Two workers with topics of their own lose their connections to a restart."""
    name = f"{pipeline.settings.group_id}-changed"
    await Pipeline(secure_broker.bootstrap_servers, name, tmp_path).create()
    steady_user, changed_user = new_user(secure_broker), new_user(secure_broker)
    steady_workers = secured(sasl_username=steady_user, sasl_password=PASSWORD)
    changed_workers = secured(name, sasl_username=changed_user, sasl_password=PASSWORD)
    secure_broker.allow(steady_user, grants(steady_workers.settings))
    secure_broker.allow(changed_user, grants(changed_workers.settings))
    steady, changed = await steady_workers.start_worker(), await changed_workers.start_worker()
    for worker in (steady, changed):
        await worker.logged("lane.opened")
    secure_broker.add_user(changed_user, "another")
    await pipeline.feed(traffic(5), 200)
    await pipeline.caught_up()
    assert changed.exit_code is None
    secure_broker.restart()
    assert await changed.ended() == CONFIG
    assert "check CC_SECURITY_PROTOCOL, CC_SASL_MECHANISM" in changed.events("consumer.failed")[0]["error"]
    await _groups_are_loaded(pipeline)
    await pipeline.feed(traffic(5), 200, skip=200)
    await pipeline.caught_up()
    assert await steady.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 400
    assert PASSWORD not in changed.text() + steady.text()


async def _groups_are_loaded(pipeline: Pipeline) -> None:
    """Wait for a broker that was restarted to tell of groups again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(KafkaError, KeyError):  # aiokafka may leave partitions out without an error
                await pipeline.lag()
                return
            await asyncio.sleep(0.2)


async def test_inspect_and_verify_need_to_read_and_no_more(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker
) -> None:
    """Of each topic, and to know of the group; what may only write a topic is refused."""
    user = new_user(secure_broker)
    readers = secured(sasl_username=user, sasl_password=PASSWORD)
    needed = grants(readers.settings)
    topics = [Grant(each.resource, each.name, each.setting, READ) for each in needed if each.resource == TOPIC]
    group = next(each for each in needed if each.resource == GROUP)
    await pipeline.feed(traffic(3), 300)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == OK
    secure_broker.allow(user, [*topics, Grant(group.resource, group.name, group.setting, ("Describe",))])
    key = next(iter(await pipeline.states()))
    for command in (f"inspect {key} --why", "verify"):
        told = await ended(command, environ_of(readers.settings))
        assert told.exit_code == OK, told.printed
    secure_broker.forbid(user, next(each for each in topics if each.setting == "CC_TRANSITIONS_TOPIC"))
    writing = Grant(TOPIC, readers.settings.transitions_topic, "CC_TRANSITIONS_TOPIC", ("Write", "DescribeConfigs"))
    secure_broker.allow(user, [writing])
    refused = await ended("verify", environ_of(readers.settings))
    assert refused.exit_code == CONFIG
    (line,) = refused.printed.splitlines()
    assert line.startswith(f"reading {readers.settings.transitions_topic!r}: a permission is missing")
    assert "Read on this topic" in line
    assert PASSWORD not in line
