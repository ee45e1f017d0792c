"""A real Kafka broker for the tests: an external one, one in Docker, or one started from jars with Java."""

import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.live.jars import fetch_jars
from tests.live.lost_markers import LostMarker, find_lost_markers
from tests.sockets import find_free_ports

_POM = Path(__file__).with_name("pom.xml")
PINNED_VERSION = _POM.read_text(encoding="utf-8").partition("<kafka.version>")[2].partition("<")[0]
KEEPS_MARKERS = "4.2.2"
"""The newest version whose brokers lose no transaction markers (KAFKA-20734)."""
KAFKA_VERSION = os.environ.get("KAFKA_VERSION") or PINNED_VERSION
"""The version of the brokers that the tests start."""
FORMAT = tuple(os.environ.get("KAFKA_FORMAT", "").split())
"""Options with which their storage is formatted: the levels of features, such as `--feature transaction.version=0`."""
OLDEST_VERSION = "3.3.2"
"""The oldest version whose KRaft mode is meant for production; no older one is tested at every change."""
TESTED_VERSIONS = (OLDEST_VERSION, "3.9.1", KEEPS_MARKERS, PINNED_VERSION)
"""The versions that `docs/how-to/upgrade.md` names, in ascending order."""
LOWEST_LEVELS = "3.3-IV3"
"""The release with the lowest levels of features that brokers of Kafka 4 can be formatted with: transactions of
version 0, and no groups of the newer protocol."""
KEEPS_LATE_OFFSETS_OUT = (4, 0)
"""The first release whose coordinators of groups never let a late offset of a transaction displace a newer one."""
IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_DOCKER_S = 10
_READY_S = 600  # 5 s on an idle machine
_STOP_S = 20
_STARTED = "Kafka Server started"
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of Java with which a broker starts in half the time. It is slower where it has much to do."""
_ARCHIVE = "classes.jsa"
"""The classes that a broker loads, as Java has them in memory: with them it starts in half the time once more."""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "initial.broker.registration.timeout.ms": "600000",  # a busy machine starts several at once
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
}


def release_of(version: str) -> tuple[int, int]:
    """The release of a version: 4 and 2 of `4.2.2`."""
    major, minor, _ = version.split(".", 2)
    return int(major), int(minor)


class Broker(Protocol):
    """A running Kafka."""

    @property
    def bootstrap_servers(self) -> str: ...

    def close(self) -> None:
        """Stop it and delete its data, if the tests started it."""


class BrokerError(Exception):
    """A broker did not start."""


class LocalBroker:
    """One KRaft node from jars, on loopback; it keeps its ports and data over a restart.

    Beside its own port it listens on `behind_port` for a proxy, which it advertises as `front_port`.
    Where `is_measured`, it gets all of Java's optimizations, and starts later.
    """

    def __init__(
        self, jars: Path, more_ports: int = 0, *, is_measured: bool = False, format_options: Sequence[str] = FORMAT
    ) -> None:
        self._jars = jars
        self._format_options = format_options
        self._java_options = ["-Xmx512m", *(() if is_measured else _QUICK_START)]
        self._home = Path(tempfile.mkdtemp(prefix="test-broker-"))
        self._port, self._controller, self.behind_port, self.front_port, *self._more_ports = find_free_ports(
            4 + more_ports
        )
        self._cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start with the ports and data of the last time. Raises BrokerError with the failures in the log."""
        if not self._config.exists():
            self._format()
        with self._log.open("ab") as log:
            log_start = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)), stdout=log, stderr=subprocess.STDOUT, cwd=self._home
            )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                if _STARTED.encode() in self._log.read_bytes()[log_start:]:
                    return
            time.sleep(0.1)
        self.stop()
        raise BrokerError(f"the broker did not start: {_find_causes(self._log.read_bytes()[log_start:])}")

    def stop(self) -> None:
        """Shut down cleanly, also if paused; a broker that takes too long is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill the process. A start right afterwards is refused for some seconds, until the old session ends."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_S)

    @property
    def is_up(self) -> bool:
        """Whether its process runs or is paused."""
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        self.stop()
        self.start()

    def replace_jars(self, jars: Path) -> None:
        """Start from these jars from now on, with the same data."""
        self._jars = jars

    def pause(self) -> None:
        """Stop the process: it keeps its connections and answers no request."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def lost_markers(self) -> list[LostMarker]:
        """The transaction markers that it has skipped so far, by its log."""
        with self._log.open("rb") as lines:
            return list(find_lost_markers(lines))

    def save(self, folder: Path) -> None:
        """Copy its data and its log."""
        shutil.copytree(self._home, folder)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _properties(self) -> dict[str, str]:
        """The broker's settings."""
        return SETTINGS | {
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": (
                f"PLAINTEXT://{self.bootstrap_servers},PROXIED://127.0.0.1:{self.behind_port},"
                f"CONTROLLER://127.0.0.1:{self._controller}"
            ),
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers},PROXIED://127.0.0.1:{self.front_port}",
            "log.dirs": str(self._home / "data"),
        }

    def _format(self) -> None:
        self._config.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        cluster = f"--cluster-id={self._cluster_id}"  # an id may begin with a dash, which would be read as an option
        command = self._java(
            "kafka.tools.StorageTool", "format", cluster, "-c", str(self._config), *self._format_options
        )
        formatted = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_READY_S)
        if formatted.returncode != 0:
            raise BrokerError(f"the storage could not be formatted: {formatted.stdout}{formatted.stderr}"[-4_000:])

    @property
    def _config(self) -> Path:
        return self._home / "server.properties"

    @property
    def _log(self) -> Path:
        return self._home / "broker.log"

    def _java(self, *arguments: str) -> list[str]:
        archive = self._jars / _ARCHIVE
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        return ["java", *shared, *self._java_options, "-cp", f"{self._jars}/*", *arguments]


def _find_causes(log: bytes) -> str:
    """The first lines of a broker's log that name a failure, each with what follows, and the log's last lines."""
    lines = log.decode(errors="replace").splitlines()
    failures = [number for number, line in enumerate(lines) if re.search(r" ERROR |Exception|OutOfMemory", line)]
    shown = sorted({number + more for number in failures[:20] for more in range(3) if number + more < len(lines)})
    return "\n".join([lines[number][:500] for number in shown] + ["[...]"] + lines[-20:])


class GivenBroker:
    """A broker that the tests did not start."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def close(self) -> None:
        """Do nothing: it keeps running."""


class DockerBroker:
    """The official image. Its port is chosen before it starts, since the broker must advertise it."""

    def __init__(self) -> None:
        (self._port,) = find_free_ports(1)
        self._container = DockerContainer(IMAGE).with_bind_ports(self._port, self._port)
        self._host = self._container.get_container_host_ip()
        settings = SETTINGS | {
            "controller.quorum.voters": "1@localhost:9093",
            "listeners": f"PLAINTEXT://0.0.0.0:{self._port},CONTROLLER://localhost:9093",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
        }
        self._container.with_envs(
            **{f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
        )
        self._container.waiting_for(LogMessageWaitStrategy(_STARTED).with_startup_timeout(_READY_S))

    @property
    def bootstrap_servers(self) -> str:
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        self._container.start()

    def close(self) -> None:
        self._container.stop()


def find_broker(*, is_measured: bool = False) -> Broker | str:
    """A running Kafka, or why there is none. Raises BrokerError, or the error of Docker, if it does not start."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        return GivenBroker(given)
    if _docker_responds():
        return _start(DockerBroker())
    ready = jars()
    return ready if isinstance(ready, str) else _start(LocalBroker(ready, is_measured=is_measured))


def jars(version: str = KAFKA_VERSION) -> Path | str:
    """The folder of Kafka's jars, or why there is none."""
    folder = fetch_jars(_POM, f"kafka-{version}-with-tools-and-converter", f"-Dkafka.version={version}")
    if isinstance(folder, str):
        return f"no KAFKA_BOOTSTRAP_SERVERS, no Docker that answers, {folder}"
    _archive_classes(folder)
    return folder


def _archive_classes(folder: Path) -> None:
    """Start a broker to archive its classes, once. Other processes do not wait for it: they start brokers without."""
    archive, lock = folder / _ARCHIVE, folder / "archiving"
    if archive.exists():
        return
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return
    partial = folder / f"{_ARCHIVE}.partial"
    broker = LocalBroker(folder)
    broker._java_options.append(f"-XX:ArchiveClassesAtExit={partial}")
    broker.start()
    broker.close()
    assert broker._process is not None
    if broker._process.returncode > 0:  # below zero if it did not end in time and was killed
        partial.rename(archive)
    lock.unlink()


def _start(broker: LocalBroker | DockerBroker) -> Broker:
    try:
        broker.start()
    except BaseException:
        broker.close()
        raise
    return broker


def _docker_responds() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=_DOCKER_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0
