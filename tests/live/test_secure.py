"""The main job over secure connections, with only the listed permissions and with credentials that change."""

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from consumer.app.service import running
from consumer.kafka.acls import GROUP, TOPIC, TRANSACTIONAL_ID, Grant, autoscaler_grants, grants
from consumer.kafka.publisher import TransactionalPublisher
from consumer.preflight.topic_admin import TopicAdmin
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError
from tests.live.authority import Authority
from tests.live.commands import WAIT_S, ended, environ_of
from tests.live.conftest import UniqueName
from tests.live.harness import Pipeline, now_ms
from tests.live.secure_broker import SecureBroker
from tests.live.token_endpoint import TokenProvider
from tests.live.tokens import put

COUNT = 3_000
OK, UNAVAILABLE, CONFIG = 0, 69, 78
PASSWORD = "hunter2-password"
READ = ("Read", "DescribeConfigs")
Secured = Callable[..., Pipeline]


@pytest.fixture
async def pipeline(secure_broker: SecureBroker, unique_name: UniqueName, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """The topics, for the tests, which have all permissions."""
    pipeline = Pipeline(secure_broker.bootstrap_servers, unique_name("p"), tmp_path)
    await pipeline.create()
    yield pipeline
    await pipeline.close()


@pytest.fixture
async def secured(pipeline: Pipeline, secure_broker: SecureBroker, tmp_path: Path) -> AsyncIterator[Secured]:
    """A function that makes the same pipeline for workers, which must authenticate."""
    pipelines: list[Pipeline] = []

    def make(name: str | None = None, **settings: Any) -> Pipeline:
        (folder := tmp_path / f"secured-{len(pipelines)}").mkdir()
        pipelines.append(
            Pipeline(
                secure_broker.sasl, name or pipeline.settings.group_id, folder, security_protocol="SASL_SSL",
                ssl_ca_file=str(secure_broker.authority.ca_file), **settings,
            )
        )  # fmt: skip
        return pipelines[-1]

    yield make
    for other in pipelines:
        await other.close()


def traffic(seed: int) -> Traffic:
    return Traffic(seed=seed, start_ms=now_ms(), disorder=0.2, duplicates=0.1, broken=0.01, conversations=100)


def new_user(broker: SecureBroker) -> str:
    user = f"user-{uuid.uuid4().hex}"
    broker.add_user(user, PASSWORD)
    return user


def permit(secured: Secured, broker: SecureBroker) -> Pipeline:
    """A pipeline whose workers are a user of their own, with all permissions that they need."""
    workers = secured(sasl_username=new_user(broker), sasl_password=PASSWORD)
    broker.allow(workers.settings.sasl_username, grants(workers.settings))
    return workers


async def test_exactly_once_with_the_listed_permissions(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker
) -> None:
    """One worker replaces another."""
    workers = permit(secured, secure_broker)
    await pipeline.write_traffic(traffic(1), COUNT)
    checked = await ended("check", environ_of(workers.settings))
    assert checked.exit_code == OK, checked.printed
    first = await workers.start_worker()
    await first.logged("lane.opened")
    assert await first.end(signal.SIGTERM) == OK
    second = await workers.start_worker()
    await pipeline.caught_up()
    judged = await pipeline.judge()
    assert (judged.records, judged.dead > 0) == (COUNT, True)
    assert await second.end(signal.SIGTERM) == OK
    assert PASSWORD not in checked.printed + first.text() + second.text()


async def test_autoscaler_sees_offsets_and_no_records(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker
) -> None:
    """With the client that asks as KEDA does: the ends of the partitions, and the group's offsets."""
    user, settings = new_user(secure_broker), pipeline.settings
    secure_broker.allow(user, autoscaler_grants(settings))
    await pipeline.write_traffic(traffic(1), COUNT)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == OK
    credentials: dict[str, str | int | float | bool] = {
        "bootstrap.servers": secure_broker.sasl, "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user, "sasl.password": PASSWORD, "ssl.ca.location": str(secure_broker.authority.ca_file),
        "log_level": 0,
    }  # fmt: skip
    admin = AdminClient(credentials)
    partitions = await asyncio.to_thread(admin.list_topics, settings.input_topic, 60)
    wanted = [
        TopicPartition(settings.input_topic, number) for number in partitions.topics[settings.input_topic].partitions
    ]
    asked = admin.list_offsets({partition: OffsetSpec.latest() for partition in wanted})  # type: ignore[no-untyped-call]
    ends = {found.partition: end.result(60).offset for found, end in asked.items()}
    (group,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(settings.group_id, wanted)]).values()
    committed = {found.partition: found.offset for found in group.result(60).topic_partitions}
    assert committed == ends
    assert sum(ends.values()) >= COUNT
    reader = secured(sasl_username=user, sasl_password=PASSWORD)
    shown = await ended("verify", environ_of(reader.settings))
    assert shown.exit_code == CONFIG, shown.printed


async def test_every_listed_permission_is_needed(
    secure_broker: SecureBroker, unique_name: UniqueName, tmp_path: Path
) -> None:
    """Without a permission `check` names it, and a service that skips the check fails when it needs it.

    Two exceptions: only the check uses DescribeConfigs, and outputs are read only to repair a transaction whose
    markers the brokers lost, which does not happen here.
    """
    async with asyncio.TaskGroup() as tasks:
        count = 0
        for index, grant in enumerate(grants(Settings(bootstrap_servers=""))):
            for operation in grant.operations:
                count += 1
                name = unique_name(f"{index}-{operation}")
                tasks.create_task(
                    _check_without(
                        operation, index, Pipeline(secure_broker.bootstrap_servers, name, tmp_path), secure_broker
                    )
                )
    assert count == 13


async def _check_without(operation: str, index: int, pipeline: Pipeline, broker: SecureBroker) -> None:
    user = new_user(broker)
    await pipeline.create()
    await pipeline.write_traffic(Traffic(seed=3, start_ms=now_ms(), conversations=20, broken=0.2), 200)
    settings = msgspec.structs.replace(
        pipeline.settings, bootstrap_servers=broker.sasl, security_protocol="SASL_SSL", sasl_username=user,
        sasl_password=PASSWORD, ssl_ca_file=str(broker.authority.ca_file), admin_port=0, query_port=0,
    )  # fmt: skip
    needed = grants(settings)
    lacking = needed[index]
    if (operation, lacking.setting) == ("Read", "CC_STATE_TOPIC"):  # an empty state topic is not read
        pipeline.change(input_topic=settings.state_topic)
        await pipeline.write_traffic(Traffic(seed=3, start_ms=now_ms(), conversations=20), 20)
    rest = tuple(other for other in lacking.operations if other != operation)
    needed[index] = Grant(lacking.resource, lacking.name, lacking.setting, rest, lacking.is_prefix)
    broker.allow(user, needed)
    with pytest.raises(ConfigurationError) as raised:
        async with TopicAdmin(settings) as admin:
            await admin.verify()
    (problem,) = str(raised.value).splitlines()
    assert f"{lacking.name!r} ({lacking.setting}): " in problem
    assert f" --operation {operation} " in problem
    is_for_repair = (operation, lacking.setting) in {
        ("Read", "CC_TRANSITIONS_TOPIC"),
        ("Read", "CC_DEAD_LETTERS_TOPIC"),
    }
    if operation != "DescribeConfigs" and not is_for_repair:
        error = await _run_until_failure(settings)
        assert "a permission is missing: grant" in str(error), f"{operation} on {lacking.name!r}"


async def _run_until_failure(settings: Settings) -> ConfigurationError | None:
    """Run a worker until it fails; returns the error, None if it keeps running."""
    try:
        async with asyncio.timeout(WAIT_S), running(settings) as service:
            await service.worker.failure()
    except ConfigurationError as error:
        return error
    except TimeoutError:
        pass
    return None


async def test_permission_is_taken_away_and_given_back(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker
) -> None:
    """The worker ends and names what is missing. A worker that starts afterwards goes on, and no effect is repeated."""
    workers = permit(secured, secure_broker)
    user, needed = workers.settings.sasl_username, grants(workers.settings)
    taken = (
        (TOPIC, "CC_INPUT_TOPIC", "Read", "Read on the input topic"),
        (TOPIC, "CC_STATE_TOPIC", "Write", "Read and Write on the state"),
        (GROUP, "CC_GROUP_ID", "Read", "Read on the group of CC_GROUP_ID"),
        (TRANSACTIONAL_ID, "CC_GROUP_ID, CC_INPUT_TOPIC", "Write", "Write on transactional ids"),
    )
    for part, (resource, setting, operation, phrase) in enumerate(taken):
        worker = await workers.start_worker()
        await worker.logged("lane.opened")
        name, is_prefix = next((g.name, g.is_prefix) for g in needed if (g.resource, g.setting) == (resource, setting))
        grant = Grant(resource, name, setting, (operation,), is_prefix)
        secure_broker.forbid(user, grant)
        await pipeline.write_traffic(traffic(6), 200, skip=200 * part)
        assert await worker.ended() == CONFIG, worker.text()
        (failed,) = worker.events("consumer.failed")
        assert "a permission is missing: grant" in failed["error"]
        assert phrase in failed["error"]
        secure_broker.allow(user, [grant])
    last = await workers.start_worker()
    await pipeline.caught_up()
    assert await last.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 200 * len(taken)


async def test_token_is_read_again_for_every_connection(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """The broker closes a connection when its token expires."""
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
        await pipeline.write_traffic(traffic(4), 500, skip=500 * part)
        await asyncio.sleep(1.5)
    await pipeline.caught_up()
    renewing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewing
    assert await worker.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 1_500
    assert "eyJ" not in worker.text()


async def test_token_is_fetched_ahead_of_its_expiry(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """With client credentials. While the provider is away the last token works, and after that the worker waits."""
    user, secret = f"user-{uuid.uuid4().hex}", tmp_path / "secret"
    put(secret, f"{PASSWORD}\n")
    async with TokenProvider(tmp_path, secure_broker.authority, secure_broker.tokens, user, PASSWORD) as provider:
        workers = secured(
            sasl_mechanism="OAUTHBEARER", sasl_oauth_token_endpoint=provider.url, sasl_oauth_client_id=user,
            sasl_oauth_client_secret_file=str(secret), sasl_oauth_scope="kafka",
            sasl_oauth_ca_file=str(secure_broker.authority.ca_file), log_level="debug",
        )  # fmt: skip
        secure_broker.allow(user, grants(workers.settings))
        environ = environ_of(workers.settings) | {"CC_ADMIN_PORT": "0", "CC_QUERY_PORT": "0"}
        put(secret, "hunter2-wrong")
        for command in ("run", "check"):
            refused = await ended(command, environ)
            assert refused.exit_code == CONFIG, refused.printed
            assert "the provider refused the client (401, invalid_client): check CC_SASL_OAUTH" in refused.printed
        put(secret, PASSWORD)
        await provider.stop()
        for command in ("run", "check"):
            unreachable = await ended(command, environ)
            assert unreachable.exit_code == UNAVAILABLE, unreachable.printed
            assert "CC_SASL_OAUTH_TOKEN_ENDPOINT: the provider cannot be reached" in unreachable.printed
            assert ("oauth.renewal_failed" in unreachable.printed) == (command == "run")
        await provider.start()
        provider.change(lifetime_s=5.0)
        refusals = len(provider.answers())
        worker = await workers.start_worker()
        await worker.logged("lane.opened")
        for part in range(4):
            await pipeline.write_traffic(traffic(4), 250, skip=250 * part)
            await asyncio.sleep(1.5)
        await pipeline.caught_up()
        assert not worker.events("group.disconnected", "oauth.renewal_failed")
        issued = [answered_s for answered_s, status in provider.answers()[refusals:] if status == 200]
        between = [later - earlier for earlier, later in pairwise(issued)]
        assert min(between) > 2.5  # 70 % of 4 s are 2.8: no client has requests of its own
        await provider.stop()
        failed = await worker.logged("oauth.renewal_failed")
        disconnected = await worker.logged("group.disconnected")
        assert "CC_SASL_OAUTH_TOKEN_ENDPOINT: the provider cannot be reached" in disconnected["error"]
        assert failed["timestamp"] < disconnected["timestamp"]
        await pipeline.write_traffic(traffic(4), 250, skip=1_000)
        assert (await worker.readiness())[0] == 503
        provider.change(secret="hunter2-new")
        await provider.start()
        async with asyncio.timeout(WAIT_S):
            while provider.answers()[-1][1] != 401:
                await asyncio.sleep(0.1)
        put(secret, "hunter2-new")
        await worker.logged("oauth.token_renewed")
        await pipeline.caught_up()
        assert await worker.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 1_250
    printed = refused.printed + unreachable.printed + worker.text()
    assert [text for text in ("eyJ", "hunter2", "Basic ") if text in printed] == []


@pytest.mark.parametrize(
    ("fault", "error", "phrase"),
    [
        ("password", ConfigurationError, "CC_SASL_PASSWORD"),
        ("authority", RetriableError, "CC_SSL_CA_FILE"),
        ("expired token", RetriableError, "CC_SASL_OAUTH_TOKEN_FILE: it expired"),
        ("refused token", RetriableError, "CC_SASL_OAUTH_TOKEN_FILE: check"),
        ("no token", RetriableError, "CC_SASL_OAUTH_TOKEN_FILE: cannot use"),
    ],
)
async def test_new_credential_files_are_retried_a_password_is_not(
    fault: str,
    error: type[ExternalError],
    phrase: str,
    secured: Secured,
    secure_broker: SecureBroker,
    tmp_path: Path,
) -> None:
    """A running process reads files again. It has read the password at its start, so no retry can succeed."""
    token = tmp_path / "token"
    if "token" in fault:
        settings = secured(sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file=str(token)).settings
    else:
        settings = secured(sasl_username=new_user(secure_broker), sasl_password=PASSWORD).settings
    match fault:
        case "password":
            secure_broker.add_user(settings.sasl_username, "another")
        case "authority":
            untrusted = Authority(tmp_path, "untrusted").ca_file
            settings = msgspec.structs.replace(settings, ssl_ca_file=str(untrusted))
        case "expired token":
            put(token, secure_broker.tokens.token("user", -60))
        case "refused token":
            put(token, secure_broker.tokens.token("user", 600, audience="others"))
    publisher = TransactionalPublisher(settings, 0)
    try:
        with pytest.raises(error, match=phrase):
            await publisher.open()
    finally:
        await publisher.close()


async def test_broker_restart_is_survived_a_changed_password_is_not(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """Two workers with topics of their own lose their connections in a restart of the broker."""
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
    await pipeline.write_traffic(traffic(5), 200)
    await pipeline.caught_up()
    assert changed.exit_code is None
    secure_broker.restart()
    assert await changed.ended() == CONFIG
    assert "check CC_SECURITY_PROTOCOL, CC_SASL_MECHANISM" in changed.events("consumer.failed")[0]["error"]
    await _wait_for_groups(pipeline)
    await pipeline.write_traffic(traffic(5), 200, skip=200)
    await pipeline.caught_up()
    assert await steady.end(signal.SIGTERM) == OK
    assert (await pipeline.judge()).records == 400
    assert PASSWORD not in changed.text() + steady.text()


async def _wait_for_groups(pipeline: Pipeline) -> None:
    """Wait until the restarted broker answers questions about groups."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(KafkaError, KeyError):  # aiokafka may omit partitions without an error
                await pipeline.lag()
                return
            await asyncio.sleep(0.2)


async def test_inspect_verify_and_export_need_only_to_read(
    pipeline: Pipeline, secured: Secured, secure_broker: SecureBroker, tmp_path: Path
) -> None:
    """They need Read on the topics, `inspect` not on the input, and Describe on the group; Write alone is refused."""
    user = new_user(secure_broker)
    readers = secured(sasl_username=user, sasl_password=PASSWORD)
    needed = grants(readers.settings)
    topics = [Grant(TOPIC, grant.name, grant.setting, READ) for grant in needed if grant.resource == TOPIC]
    group = next(grant for grant in needed if grant.resource == GROUP)
    await pipeline.write_traffic(traffic(3), 300)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == OK
    secure_broker.allow(user, [*topics, Grant(group.resource, group.name, group.setting, ("Describe",))])
    key = next(iter(await pipeline.states()))
    for command in (f"inspect {key} --why", "verify", f"export {tmp_path / 'out'} --format csv --table states"):
        result = await ended(command, environ_of(readers.settings))
        assert result.exit_code == OK, result.printed
    of_input = next(grant for grant in topics if grant.setting == "CC_INPUT_TOPIC")
    secure_broker.forbid(user, of_input)
    describing = Grant(TOPIC, readers.settings.input_topic, "CC_INPUT_TOPIC", ("Describe", "DescribeConfigs"))
    secure_broker.allow(user, [describing])
    inspected = await ended(f"inspect {key}", environ_of(readers.settings))
    assert inspected.exit_code == OK, inspected.printed
    secure_broker.allow(user, [of_input])
    secure_broker.forbid(user, next(grant for grant in topics if grant.setting == "CC_TRANSITIONS_TOPIC"))
    writing = Grant(TOPIC, readers.settings.transitions_topic, "CC_TRANSITIONS_TOPIC", ("Write", "DescribeConfigs"))
    secure_broker.allow(user, [writing])
    refused = await ended("verify", environ_of(readers.settings))
    assert refused.exit_code == CONFIG
    (line,) = refused.printed.splitlines()
    assert line.startswith(f"reading {readers.settings.transitions_topic!r}: a permission is missing")
    assert "Read on this topic" in line
    assert PASSWORD not in line
