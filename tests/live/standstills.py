"""What keeps a partition from moving: how each cause is brought about on real brokers, and what shows it.

The table of `docs/standing-still.md` has the same rows.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import InconsistentGroupProtocolError
from msgspec import Struct
from msgspec.structs import replace

from consumer.kafka.acls import grants
from consumer.preflight.topic_checks import plans
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.worker.ports import ExternalError
from tests.kafka.batches import bomb, send
from tests.live.broker import LocalBroker
from tests.live.commands import WAIT_S, ended, environ_of
from tests.live.conftest import UniqueName, needed_jars
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.placed_cluster import PlacedCluster
from tests.live.prometheus import Prometheus
from tests.live.proxy import Proxy
from tests.live.quotas import set_quota
from tests.live.secure_broker import SecureBroker
from tests.live.stream import damaged, of_partition, write
from tests.live.test_damage import configure
from tests.live.tokens import put
from tests.live.worker_process import WorkerProcess

FRAGILE: Final = 1
"""The partition that the fragile broker leads: one of one topic, and nothing else."""
DISK_BYTES: Final = 64_000_000
LINES_MAX: Final = 30
"""Lines that a worker may log while all brokers are away."""
_PASSWORD: Final = "hunter2-password"
_RESTORED: Final = 3_000
"""Conversations of one partition, whose states are more than a megabyte."""
_RESTORED_PER_S: Final = 12_000
"""How many bytes of them arrive a second while a restore is slow."""


class Scene(Struct):
    """A pipeline on brokers that a cause can get at."""

    pipeline: Pipeline
    """For the tests, which have all permissions."""
    workers: Pipeline
    """The same topics and group, as workers reach them."""
    drafts: Iterator[Draft]
    cluster: PlacedCluster | None = None
    broker: LocalBroker | None = None
    secure_broker: SecureBroker | None = None
    issue_token: Callable[[float], None] | None = None
    """Gives the workers a token that lives so many seconds."""
    renewing: asyncio.Task[None] | None = None
    certificate: str = ""
    """The name of the workers' certificate, if they have one."""
    disk: Path | None = None
    front: str = ""
    """Where workers find the brokers, if not where the tests do."""
    prometheus: Prometheus | None = None
    worker: WorkerProcess | None = None
    """The one that is looked at."""
    partition: int = 0
    """The partition that is looked at."""
    began_s: float = 0.0
    """When the cause began."""
    states_before: Mapping[str, bytes] | None = None

    @property
    def settings(self) -> Settings:
        return self.pipeline.settings

    @property
    def proxy(self) -> Proxy:
        """That of the fragile broker."""
        assert self.cluster is not None
        return self.cluster.proxies[1]

    @property
    def environ(self) -> dict[str, str]:
        """The settings of commands."""
        return environ_of(self.workers.settings) | ({"CC_BOOTSTRAP_SERVERS": self.front} if self.front else {})

    def begin(self) -> None:
        """The cause begins now."""
        self.began_s = time.monotonic()

    async def start_worker(self, *command: str) -> WorkerProcess:
        """Start a worker, which is looked at and scraped from now on."""
        self.worker = await self.workers.start_worker(*command, bootstrap_servers=self.front or None)
        if self.prometheus is not None:
            self.prometheus.scrape([(await self.worker.logged("consumer.starting"))["admin_port"]])
        return self.worker

    async def restart(self, **settings: Any) -> WorkerProcess:
        """Replace the worker that is looked at, if it has not ended, by one with other settings."""
        if self.worker is not None and self.worker.exit_code is None:
            assert await self.worker.end(signal.SIGTERM) == 0
        self.workers.change(**settings)
        return await self.start_worker()

    async def write_traffic(self, count: int = 200) -> None:
        await write(self.settings, islice(self.drafts, count))

    async def others_go_on(self) -> None:
        """Write more, and wait until it is committed in all partitions but the fragile one."""
        await self.write_traffic()
        ends = await self.pipeline.ends(self.settings.input_topic)
        await self.pipeline.committed_up_to(ends | {TopicPartition(self.settings.input_topic, FRAGILE): 0})


class Place(Struct, frozen=True):
    """Where a scene is set up."""

    request: pytest.FixtureRequest
    unique_name: UniqueName
    folder: Path

    def pipeline(self, bootstrap_servers: str, name: str = "", **settings: Any) -> Pipeline:
        return Pipeline(bootstrap_servers, name or self.unique_name("p"), self.folder, **settings)


Stage = Callable[[Place], AbstractAsyncContextManager[Scene]]
Happening = Callable[[Scene], AbstractAsyncContextManager[None]]


def _traffic(partition: int | None = None) -> Iterator[Draft]:
    traffic = Traffic(seed=1, start_ms=now_ms(), conversations=100 if partition is None else _RESTORED)
    return records(traffic) if partition is None else of_partition(partition, traffic)


def shared_broker(partition: int | None = None, **settings: Any) -> Stage:
    """The broker of the session; traffic goes to all partitions or to one."""

    @asynccontextmanager
    async def stage(place: Place) -> AsyncIterator[Scene]:
        pipeline = place.pipeline(place.request.getfixturevalue("kafka"), **settings)
        await pipeline.create()
        try:
            yield Scene(pipeline, pipeline, _traffic(partition))
        finally:
            await pipeline.close()

    return stage


def own_broker(**settings: Any) -> Stage:
    """A broker that can be taken away."""

    @asynccontextmanager
    async def stage(place: Place) -> AsyncIterator[Scene]:
        async with _running(LocalBroker(needed_jars())) as broker, _serving(broker, place, settings) as scene:
            yield scene

    return stage


def two_brokers(topic: str = "input_topic", partition: int | None = None, **settings: Any) -> Stage:
    """The fragile one leads a partition of the topic that this setting names; workers reach both through proxies."""

    @asynccontextmanager
    async def stage(place: Place) -> AsyncIterator[Scene]:
        placed: PlacedCluster = place.request.getfixturevalue("placed_cluster")
        async with placed.reachable() as cluster:
            pipeline = place.pipeline(cluster.bootstrap_servers, **settings)
            await cluster.create_internal_topics(cluster.steady)
            for plan in plans(pipeline.settings):
                nodes = [cluster.steady] * PARTITIONS
                if plan.name == getattr(pipeline.settings, topic):
                    nodes[FRAGILE] = cluster.fragile
                await cluster.create_topic(plan.name, nodes, plan.configs)
            front = f"127.0.0.1:{cluster.steady.front_port}"
            try:
                yield Scene(pipeline, pipeline, _traffic(partition), cluster=cluster, front=front)
            finally:
                await pipeline.close()

    return stage


class BrokerOnDisk(LocalBroker):
    """One whose log directory lies on a disk of its own."""

    def __init__(self, jars: Path, disk: Path) -> None:
        super().__init__(jars)
        self._disk = disk

    def _properties(self) -> dict[str, str]:
        return super()._properties() | {"log.dirs": str(self._disk / "logs"), "log.index.size.max.bytes": "65536"}


@asynccontextmanager
async def small_disk(place: Place) -> AsyncIterator[Scene]:
    """A broker on a small disk, for which a tmpfs is mounted. Without the right to, this is skipped; not under CI."""
    disk = place.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    mounted = await asyncio.to_thread(subprocess.run, mount, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        message = f"NOT DONE: a full disk was not tried, a tmpfs could not be mounted (needs root): {mounted.stderr}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    try:
        broker = BrokerOnDisk(needed_jars(), disk)
        async with _running(broker), _serving(broker, place, {"request_timeout_ms": 3_000}) as scene:
            scene.disk = disk
            yield scene
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(disk)], check=True)


@asynccontextmanager
async def _running(broker: LocalBroker) -> AsyncIterator[LocalBroker]:
    try:
        await asyncio.to_thread(broker.start)
        yield broker
    finally:
        await asyncio.to_thread(broker.close)


@asynccontextmanager
async def _serving(broker: LocalBroker, place: Place, settings: Mapping[str, Any]) -> AsyncIterator[Scene]:
    pipeline = place.pipeline(broker.bootstrap_servers, **settings)
    try:
        await pipeline.create()
        yield Scene(pipeline, pipeline, _traffic(), broker=broker)
    finally:
        await pipeline.close()


Credential = Literal["password", "token", "certificate"]


def secure_broker(credential: Credential) -> Stage:
    """Workers have a user of their own with the listed permissions, and this to show who they are."""

    @asynccontextmanager
    async def stage(place: Place) -> AsyncIterator[Scene]:
        broker: SecureBroker = place.request.getfixturevalue("secure_broker")
        pipeline = place.pipeline(broker.bootstrap_servers)
        await pipeline.create()
        name, token = f"user-{uuid.uuid4().hex}", place.folder / "token"
        user, address, credentials = name, broker.sasl, {"security_protocol": "SASL_SSL"}
        match credential:
            case "password":
                broker.add_user(user, _PASSWORD)
                credentials |= {"sasl_username": user, "sasl_password": _PASSWORD}
            case "token":
                credentials |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": str(token)}
            case "certificate":
                issued = broker.authority.issue(name)
                user, address = f"CN={name}", broker.tls
                credentials = {
                    "security_protocol": "SSL", "ssl_cert_file": str(issued.cert_file),
                    "ssl_key_file": str(issued.key_file),
                }  # fmt: skip
        workers = place.pipeline(
            address, pipeline.settings.group_id, ssl_ca_file=str(broker.authority.ca_file), **credentials
        )
        pipeline.workers = workers.workers
        broker.allow(user, grants(workers.settings))

        def issue(lifetime_s: float) -> None:
            put(token, broker.tokens.token(user, lifetime_s))

        async def renew() -> None:
            while True:
                issue(3)
                await asyncio.sleep(1)

        renewing = asyncio.create_task(renew())
        try:
            await asyncio.sleep(0)
            yield Scene(
                pipeline, workers, _traffic(), secure_broker=broker, issue_token=issue, renewing=renewing,
                certificate=name,
            )  # fmt: skip
        finally:
            renewing.cancel()
            await pipeline.close()

    return stage


# How each cause comes and goes.


@asynccontextmanager
async def leader_refuses(scene: Scene) -> AsyncIterator[None]:
    scene.proxy.refuse()
    yield
    await scene.proxy.heal()


@asynccontextmanager
async def leader_hangs(scene: Scene) -> AsyncIterator[None]:
    scene.proxy.hang()
    yield
    await scene.proxy.heal()


@asynccontextmanager
async def leader_is_down(scene: Scene) -> AsyncIterator[None]:
    """The only replica is down: the broker that led it is gone, and the rest of the cluster knows."""
    assert scene.cluster is not None
    await asyncio.to_thread(scene.cluster.fragile.kill)
    scene.begin()
    yield
    await asyncio.to_thread(scene.cluster.fragile.start)


@asynccontextmanager
async def output_leader_is_down(scene: Scene) -> AsyncIterator[None]:
    """The lane can read and not commit, for longer than it may retry; the other lanes keep the worker."""
    async with leader_is_down(scene):
        await scene.write_traffic()
        yield


@asynccontextmanager
async def brokers_are_killed(scene: Scene) -> AsyncIterator[None]:
    assert scene.broker is not None
    async with _quietly(scene):
        scene.broker.kill()
        scene.begin()
        yield
    await asyncio.to_thread(scene.broker.start)


@asynccontextmanager
async def brokers_hang(scene: Scene) -> AsyncIterator[None]:
    assert scene.broker is not None
    async with _quietly(scene):
        scene.broker.pause()
        yield
    scene.broker.resume()


@asynccontextmanager
async def _quietly(scene: Scene) -> AsyncIterator[None]:
    """The log stays readable meanwhile."""
    assert scene.worker is not None
    lines = len(scene.worker.text().splitlines())
    yield
    logged = scene.worker.text().splitlines()[lines:]
    assert len(logged) <= LINES_MAX, "\n".join(logged)
    for complaint in ("Unclosed", "was destroyed", "never retrieved", "loop.exception"):
        assert complaint not in scene.worker.text()


@asynccontextmanager
async def disk_is_full(scene: Scene) -> AsyncIterator[None]:
    """The broker ends, while it is written to and the worker is at work."""
    assert scene.broker is not None
    assert scene.disk is not None
    await scene.write_traffic(4_000)
    ballast = scene.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65_536))
    feeding = asyncio.create_task(scene.write_traffic(4_000))
    async with asyncio.timeout(WAIT_S):
        while scene.broker.is_up:
            await asyncio.sleep(0.1)
    scene.begin()
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError, ExternalError):  # some of it may be in the topic
        await feeding
    yield
    ballast.unlink()
    await asyncio.to_thread(scene.broker.start)


@asynccontextmanager
async def transaction_is_open(scene: Scene) -> AsyncIterator[None]:
    """What follows it waits, which the tools say as well; when it has ended, all is read and its records are not."""
    settings, partition = scene.settings, 0
    conversation_id = next(iter(await scene.pipeline.states()))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id, transaction_timeout_ms=600_000
    )
    async with producer:
        await producer.begin_transaction()
        undecided = next(scene.drafts)
        await producer.send_and_wait(settings.input_topic, undecided.value, undecided.key, partition)
        await write(settings, islice(scene.drafts, 3))
        yield
        assert scene.worker is not None
        event = scene.worker.events("lane.stands_still")[-1]
        (abort,) = re.findall(rf"--topic {settings.input_topic} --partition 0 --start-offset \d+`", event["remedy"])
        for command in ("check", "verify", f"inspect {conversation_id} --why"):
            shown = await ended(command, scene.environ)
            assert shown.exit_code == 0, shown.printed
            assert "4 offsets from " in shown.printed
            assert "wait for the end of a transaction, whose newest record is" in shown.printed
            assert abort in shown.printed
        await producer.abort_transaction()


_ROOM = 400_000
"""Bytes for the states of 200 records of the traffic, and not for those of 1,000."""


@asynccontextmanager
async def breaker_is_open(scene: Scene) -> AsyncIterator[None]:
    """A restart without the cause goes on."""
    await write(scene.settings, damaged(60))
    yield
    await scene.restart(dead_letters_consecutive_max=10_000)


@asynccontextmanager
async def batch_is_too_large(scene: Scene) -> AsyncIterator[None]:
    """A restart passes it over if a setting says so."""
    settings = scene.settings
    scene.states_before = await scene.pipeline.states()
    content = bomb("zstd", settings.decompressed_bytes_max, time_ms=now_ms())
    await send(settings.bootstrap_servers, settings.input_topic, 0, content)
    yield
    await scene.restart(oversized_batches="dead_letter")


@asynccontextmanager
async def states_outgrow_their_memory(scene: Scene) -> AsyncIterator[None]:
    """What was there before fits, and what comes does not. A restart with more room goes on."""
    await scene.write_traffic(2_000)
    assert scene.worker is not None
    await scene.worker.logged("consumer.memory_low")
    await scene.write_traffic(200)  # also to a partition of which everything was read before its lane stopped
    yield
    await scene.restart(state_total_bytes_max=1_000_000_000)


@asynccontextmanager
async def another_service_takes_over(scene: Scene) -> AsyncIterator[None]:
    """It has the same transactional id and fences the lane each time that it has opened."""
    settings = scene.settings

    async def take_over() -> None:
        while True:
            async with AIOKafkaProducer(
                bootstrap_servers=settings.bootstrap_servers,
                transactional_id=f"{settings.group_id}:{settings.input_topic}:0",
            ):
                await asyncio.sleep(0.02)  # less than the lane needs to open and commit

    rival = asyncio.create_task(take_over())
    try:
        await scene.write_traffic(20)
        yield
    finally:
        rival.cancel()
        await asyncio.gather(rival, return_exceptions=True)


@asynccontextmanager
async def input_is_recreated(scene: Scene) -> AsyncIterator[None]:
    """Brokers delete the offsets with the topic, so an operator has to say that the new one is to be read."""
    scene.states_before = await scene.pipeline.states()
    await recreate(scene.settings)
    scene.begin()
    await scene.write_traffic(400)
    yield
    assert scene.worker is not None
    assert await scene.worker.end(signal.SIGTERM) == 0
    await scene.pipeline.reset_offsets()
    await scene.restart()


async def recreate(settings: Settings) -> None:
    """Delete the input topic and create another one of its name."""
    topic = settings.input_topic
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    async with asyncio.timeout(WAIT_S):
        await admin.start()
        try:
            await admin.delete_topics([topic])
            while (await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])).topic_errors[0][1]:
                await asyncio.sleep(0.5)  # the broker is not done with the deletion
            while any(one["leader"] < 0 for one in (await admin.describe_topics([topic]))[0]["partitions"]):
                await asyncio.sleep(0.05)
        finally:
            await admin.close()


@asynccontextmanager
async def state_is_truncated(scene: Scene) -> AsyncIterator[None]:
    """The service does not start on a state that is not the committed one; reading all again rebuilds it."""
    assert scene.worker is not None
    scene.states_before = await scene.pipeline.states()
    assert await scene.worker.end(signal.SIGTERM) == 0
    topic = scene.settings.state_topic
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.settings.bootstrap_servers)
    await asyncio.wait_for(admin.start(), WAIT_S)
    try:
        await configure(admin, topic, cleanup_policy="compact,delete")
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        await admin.delete_records({tp: RecordsToDelete(before_offset=20) for tp in tps})
        await configure(admin, topic, cleanup_policy="compact")
    finally:
        await admin.close()
    scene.begin()
    await scene.start_worker()
    yield
    await scene.pipeline.reset_offsets()
    await scene.restart()


@asynccontextmanager
async def fetches_are_throttled(scene: Scene) -> AsyncIterator[None]:
    """Each batch of the input is larger than the quota of all seconds that the broker looks at."""
    settings = scene.settings
    await set_quota(settings.bootstrap_servers, settings.group_id, "consumer_byte_rate", 1.0)
    await scene.write_traffic()
    yield
    await set_quota(settings.bootstrap_servers, settings.group_id, "consumer_byte_rate", None)


@asynccontextmanager
async def writes_are_throttled(scene: Scene) -> AsyncIterator[None]:
    """The records of a commit get in; then the broker leaves the connection alone for longer than a commit may take."""
    settings = scene.settings
    await set_quota(settings.bootstrap_servers, settings.group_id, "producer_byte_rate", 1.0)
    elsewhere = replace(settings, group_id=f"{settings.group_id}-relay")  # the quota is of the workers' client id
    for _ in range(5):
        await write(elsewhere, islice(scene.drafts, 100))
        await asyncio.sleep(1)
    yield
    await set_quota(settings.bootstrap_servers, settings.group_id, "producer_byte_rate", None)


@asynccontextmanager
async def permission_is_missing(scene: Scene) -> AsyncIterator[None]:
    """It was taken away from a running worker, and is given back."""
    broker, settings = scene.secure_broker, scene.workers.settings
    assert broker is not None
    grant = next(grant for grant in grants(settings) if grant.setting == "CC_TRANSITIONS_TOPIC")
    broker.forbid(settings.sasl_username, grant)
    scene.begin()
    await scene.write_traffic()
    yield
    broker.allow(settings.sasl_username, [grant])
    await scene.restart()


@asynccontextmanager
async def token_has_expired(scene: Scene) -> AsyncIterator[None]:
    """The broker closes a connection when its token expires; the worker waits for a token that is renewed late."""
    assert scene.renewing is not None
    assert scene.issue_token is not None
    scene.renewing.cancel()
    scene.issue_token(-1)
    scene.begin()
    await scene.write_traffic()
    yield
    scene.issue_token(600)


@asynccontextmanager
async def certificate_has_expired(scene: Scene) -> AsyncIterator[None]:
    """Brokers look at it where a connection begins: after a restart of theirs they let the worker in no more."""
    broker = scene.secure_broker
    assert broker is not None
    broker.authority.issue(scene.certificate, expired=True)
    await asyncio.to_thread(broker.restart)
    scene.begin()
    await scene.write_traffic()
    yield
    broker.authority.issue(scene.certificate)


@asynccontextmanager
async def restore_is_slow(scene: Scene) -> AsyncIterator[None]:
    """The way from the leader of the state's partition is narrow, at a restart with records that wait."""
    assert scene.worker is not None
    assert await scene.worker.end(signal.SIGTERM) == 0
    await scene.write_traffic()
    scene.proxy.bytes_per_s = _RESTORED_PER_S
    scene.begin()
    try:
        await scene.start_worker()
        yield
    finally:
        scene.proxy.bytes_per_s = None


class _HeldUp(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Gives up its partitions when it is let go."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        pass

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            await self.released.wait()


def _member(settings: Settings, listener: ConsumerRebalanceListener | None = None, **more: Any) -> AIOKafkaConsumer:
    """A member of the workers' group that is no worker."""
    member = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=settings.group_id,
        enable_auto_commit=False,
        rebalance_timeout_ms=300_000,
        max_poll_interval_ms=300_000,
        **{"partition_assignment_strategy": (RoundRobinPartitionAssignor,), **more},
    )
    member.subscribe([settings.input_topic], listener=listener)
    return member


@asynccontextmanager
async def rebalance_does_not_end(scene: Scene) -> AsyncIterator[None]:
    """A member is asked to join again, does not, and stays alive, as one that is held up in its own work."""
    listener = _HeldUp()
    held_up, last = _member(scene.settings, listener), _member(scene.settings)
    joining: asyncio.Task[None] | None = None
    try:
        await asyncio.wait_for(held_up.start(), WAIT_S)
        await scene.pipeline.caught_up()
        joining = asyncio.create_task(last.start())
        assert scene.worker is not None
        async with asyncio.timeout(WAIT_S):
            while len(scene.worker.events("group.revoked")) < 2:
                await asyncio.sleep(0.1)
        (scene.partition, *_) = scene.worker.events("group.revoked")[-1]["partitions"]
        scene.begin()
        await scene.write_traffic()
        yield
    finally:
        listener.released.set()
        if joining is not None:
            await asyncio.wait([joining], timeout=WAIT_S)
        await asyncio.gather(held_up.stop(), last.stop())


@asynccontextmanager
async def members_come_and_go(scene: Scene) -> AsyncIterator[None]:
    """One joins, and leaves as soon as it has partitions, and so on; each time the group assigns all of them again."""

    async def visit() -> None:
        while True:
            member = _member(scene.settings)
            try:
                await asyncio.wait_for(member.start(), WAIT_S)
            finally:
                await member.stop()

    visiting = asyncio.create_task(visit())
    try:
        await scene.write_traffic()
        yield
    finally:
        visiting.cancel()
        await asyncio.wait([visiting])


@asynccontextmanager
async def foreign_member_has_partitions(scene: Scene) -> AsyncIterator[None]:
    """A member of the group that reads nothing."""
    member = _member(scene.settings)
    try:
        await asyncio.wait_for(member.start(), WAIT_S)
        scene.begin()
        await scene.write_traffic()
        yield
    finally:
        await member.stop()


@asynccontextmanager
async def group_has_another_assignor(scene: Scene) -> AsyncIterator[None]:
    """While the worker was paused, a consumer with another assignor joined."""
    assert scene.worker is not None
    scene.worker.send(signal.SIGSTOP)
    async with asyncio.timeout(WAIT_S):
        while True:
            other = _member(scene.settings, partition_assignment_strategy=(RangePartitionAssignor,))
            try:
                await other.start()
                break
            except InconsistentGroupProtocolError:  # the broker has not removed the worker yet
                await other.stop()
                await asyncio.sleep(0.5)
    try:
        scene.worker.send(signal.SIGCONT)
        scene.begin()
        await scene.write_traffic()
        yield
    finally:
        await other.stop()
    await scene.restart()


@asynccontextmanager
async def workers_have_one_static_id(scene: Scene) -> AsyncIterator[None]:
    """With every heartbeat one takes all partitions from the other, until one of them ends."""
    assert scene.prometheus is not None
    assert scene.worker is not None
    twins = [scene.worker, await scene.workers.start_worker()]
    scene.prometheus.scrape([(await twin.logged("consumer.starting"))["admin_port"] for twin in twins])
    scene.begin()
    await scene.write_traffic()
    async with asyncio.timeout(WAIT_S):
        while not (gone := [worker for worker in twins if worker.exit_code is not None]):
            await asyncio.sleep(0.1)
    scene.worker = gone[0]
    for worker in twins:
        if worker.exit_code is None:
            await worker.end(signal.SIGTERM)
    yield
    await scene.restart(group_instance_id="")


# What each cause shows.

STANDSTILL: Final = "ConversationPartitionStandsStill"
NO_END: Final = "no other broker knows the end of the log"
BROKERS_ONLY: Final = "the brokers do not show it"
ENDED: Final = "the process ends"


class Cause(Struct, frozen=True, kw_only=True):
    """A cause, and what has to show it. Empty signals have a reason in `silent`."""

    name: str
    stage: Stage
    happens: Happening
    seen_as: str
    """The cause of the standstill; else how it is seen instead."""
    says: str = ""
    """What the message of the standstill has, or the error of a process that ends."""
    partition: int = 0
    lag: tuple[str, ...] = ("records", "seconds")
    """`undecided` is those that wait for a transaction."""
    readyz: tuple[str, ...] = ("standstill",)
    """The checks that fail, beside others that may."""
    log: tuple[str, ...] = ("lane.stands_still",)
    alerts: tuple[str, ...] = (STANDSTILL,)
    """Those whose expression holds."""
    lasting: tuple[str, ...] = ()
    """The alerts that look back at minutes, so that they hold for some after it."""
    page: tuple[str, ...] = ("row",)
    check: tuple[str, ...] = ()
    """The lines of `check` that say it."""
    check_says: str = ""
    """What they have, as a regular expression."""
    check_code: int = 0
    silent: Mapping[str, str] = {}
    """The signals that do not come, and why not."""
    others_go_on: bool = False
    """Whether the other partitions do, which is tried on the two brokers."""
    restarts: bool = False
    """Whether a restart meanwhile changes nothing."""
    records_before: int = 200
    """Records that are processed before it."""
    command: tuple[str, ...] = ()
    """The module that runs in place of the service."""
    is_judged: bool = True
    """Whether the outputs are those of the input; else the states are those from before, or go on from them."""

    @property
    def ends(self) -> bool:
        """Whether the process ends."""
        return self.seen_as.startswith("exit")


UNREACHABLE: Final = "leads the partition and cannot be reached or does not answer"
WAITING: Final = "records wait and none is read: "
AWAY: Final[dict[str, Any]] = {
    "seen_as": "leader",
    "lag": ("seconds",),
    "readyz": ("connection", "standstill"),
    "log": ("group.disconnected", "lane.stands_still"),
    "alerts": ("ConversationWorkerDisconnected", STANDSTILL),
    "check": ("connection",),
    "check_code": 69,
    "silent": {"records": NO_END},
}
OFFLINE: Final = "ConversationPartitionsOffline"
ENDS: Final[dict[str, Any]] = {
    "seen_as": "exit code 78",
    "lag": (),
    "readyz": (),
    "log": ("consumer.failed",),
    "alerts": ("ConversationConsumerDown",),
    "page": (),
}
REPLACED: Final = "the worker before it counts for five minutes"
_ENDED: Final = {"lag": ENDED, "readyz": ENDED, "page": ENDED}

CAUSES: Final = [
    Cause(
        name="the leader refuses connections", stage=two_brokers(), happens=leader_refuses, seen_as="leader",
        says=UNREACHABLE, partition=FRAGILE, lag=("seconds",), check=("leaders",), check_says=UNREACHABLE,
        silent={"records": NO_END}, others_go_on=True,
    ),
    Cause(
        name="the way to the leader hangs", stage=two_brokers(), happens=leader_hangs, seen_as="leader",
        says=UNREACHABLE, partition=FRAGILE, lag=("seconds",), check=("leaders",), check_says=UNREACHABLE,
        silent={"records": NO_END}, others_go_on=True, restarts=True,
    ),
    Cause(
        name="the partition has no leader", stage=two_brokers(), happens=leader_is_down, seen_as="leader",
        says="no broker leads the partition", partition=FRAGILE, lag=("seconds",), alerts=(STANDSTILL, OFFLINE),
        check=("leaders",), check_says="no broker leads the partition", silent={"records": NO_END},
    ),
    Cause(
        name="the state topic has no leader", stage=two_brokers("state_topic", retry_s_max=5.0),
        happens=output_leader_is_down, seen_as="unread", says=WAITING, partition=FRAGILE,
        log=("lane.stands_still", "lane.failed"), alerts=(STANDSTILL, OFFLINE), check=("leaders",),
        check_says="no broker leads the partitions 1", others_go_on=True,
    ),
    Cause(
        name="the transitions topic has no leader", stage=two_brokers("transitions_topic", retry_s_max=5.0),
        happens=output_leader_is_down, seen_as="unread", says=WAITING, partition=FRAGILE,
        log=("lane.stands_still", "lane.failed"), alerts=(STANDSTILL, OFFLINE), check=("leaders",),
        check_says="no broker leads the partitions 1", others_go_on=True,
    ),
    Cause(name="all brokers are gone", stage=own_broker(), happens=brokers_are_killed, **AWAY),
    Cause(name="all brokers hang", stage=own_broker(), happens=brokers_hang, **AWAY),
    Cause(
        name="the disk of the brokers is full", stage=small_disk, happens=disk_is_full,
        command=("tests.live.witness",), **AWAY,
    ),
    Cause(
        name="a quota of the brokers stops the reading", stage=shared_broker(), happens=fetches_are_throttled,
        seen_as="unread", says="records wait and none is read", silent={"check": BROKERS_ONLY},
    ),
    Cause(
        name="a quota of the brokers stops the writing", stage=shared_broker(), happens=writes_are_throttled,
        seen_as="unread", log=("lane.stands_still", "lane.failed"), silent={"check": BROKERS_ONLY},
    ),
    Cause(
        name="a transaction in the input is open", stage=shared_broker(0), happens=transaction_is_open,
        seen_as="open_transaction", says="4 records wait for the end", lag=("records", "seconds", "undecided"),
        check=("lag",), check_says="4 offsets from .* wait for the end of a transaction",
    ),
    Cause(
        name="the breaker is open", stage=shared_broker(dead_letters_consecutive_max=20), happens=breaker_is_open,
        seen_as="unread", says="CC_DEAD_LETTERS_CONSECUTIVE_MAX", readyz=("standstill", "breaker"),
        log=("lane.stands_still", "breaker.opened"), alerts=(STANDSTILL, "ConversationBreakerOpen"),
        silent={"check": BROKERS_ONLY},
    ),
    Cause(
        name="a batch is too large", stage=shared_broker(), happens=batch_is_too_large,
        seen_as="unread", says="CC_DECOMPRESSED_BYTES_MAX", readyz=("standstill", "batches"),
        log=("lane.stands_still", "lane.batch_too_large"), silent={"check": BROKERS_ONLY}, is_judged=False,
    ),
    Cause(
        name="the states need more memory than they may take", stage=shared_broker(state_total_bytes_max=_ROOM),
        happens=states_outgrow_their_memory, seen_as="unread", says="CC_STATE_TOTAL_BYTES_MAX",
        readyz=("standstill", "memory"), log=("lane.stands_still", "consumer.memory_low"),
        alerts=(STANDSTILL, "ConversationStateMemoryLow"), silent={"check": BROKERS_ONLY},
    ),
    Cause(
        name="another service takes the partition over, again and again", stage=shared_broker(0),
        happens=another_service_takes_over, seen_as="unread", says="another worker took the partition over",
        log=("lane.stands_still", "lane.fenced"), silent={"check": BROKERS_ONLY},
    ),
    Cause(
        name="the input was deleted and created again", stage=shared_broker(), happens=input_is_recreated,
        seen_as="unread", says="no committed offset", log=("lane.stands_still", "lane.failed"),
        check=("offsets",), check_says="no offset is committed in partitions .* the state topic", is_judged=False,
    ),
    Cause(
        name="the restore is slow",
        stage=two_brokers("state_topic", FRAGILE, partition_fetch_bytes_max=65_536, commit_records_max=100),
        happens=restore_is_slow,
        seen_as="unread", says="its state is restored, ", partition=FRAGILE, readyz=("standstill", "lanes"),
        records_before=_RESTORED,
        alerts=(STANDSTILL, "ConversationRestoreSlow"),
        check=("size",), check_says=r"spans [0-9]{4,} offsets to restore",
    ),
    Cause(
        name="a rebalance does not end", stage=shared_broker(), happens=rebalance_does_not_end, seen_as="unread",
        says="the group rebalances", alerts=(STANDSTILL, "ConversationPartitionsUnowned"), check=("group",),
        check_says="PreparingRebalance",
    ),
    Cause(
        name="members join and leave on and on", stage=shared_broker(), happens=members_come_and_go,
        seen_as="`ConversationGroupUnsettled`", lag=(), readyz=(), log=("group.revoked",), page=(),
        alerts=("ConversationGroupUnsettled",), lasting=("ConversationGroupUnsettled",),
        silent={
            **dict.fromkeys(("lag", "readyz", "page"), "the partition moves in between"),
            "check": "it is no failure while members join",
        },
    ),
    Cause(
        name="no worker has the partition", stage=shared_broker(), happens=foreign_member_has_partitions,
        seen_as="`ConversationPartitionsUnowned`", lag=(), readyz=(), log=(), page=(),
        alerts=("ConversationPartitionsUnowned",), check=("lag",), check_says=r"[1-9][0-9]* offsets to read",
        silent=dict.fromkeys(("lag", "readyz", "log", "page"), "a worker looks at its own partitions"),
    ),
    Cause(
        name="a token has expired", stage=secure_broker("token"), happens=token_has_expired, **AWAY,
    ),
    Cause(
        name="the client certificate has expired", stage=secure_broker("certificate"),
        happens=certificate_has_expired, check_says="the broker refused the client certificate",
        **{**AWAY, "check_code": 78},
    ),
    Cause(
        name="a permission was taken away", stage=secure_broker("password"), happens=permission_is_missing,
        says="Write on the state, transitions and dead letters topics", check=("permissions",),
        check_code=78, silent=_ENDED, **ENDS,
    ),
    Cause(
        name="the state does not fit the offset", stage=shared_broker(), happens=state_is_truncated,
        says="the topic was truncated", records_before=1_000, is_judged=False,
        silent={**_ENDED, "alerts": REPLACED, "check": "it reads no states"}, **{**ENDS, "alerts": ()},
    ),
    Cause(
        name="the group does not take the worker back", stage=shared_broker(), happens=group_has_another_assignor,
        says="used by another kind of consumer", check=("group",), check_code=78, silent=_ENDED, **ENDS,
    ),
    Cause(
        name="two workers have the same static id", stage=shared_broker(group_instance_id="the-same"),
        happens=workers_have_one_static_id, says="'the-same' (CC_GROUP_INSTANCE_ID): give each its own",
        silent={**_ENDED, "check": "it is no failure while one of them restarts"}, **ENDS,
    ),
]  # fmt: skip
