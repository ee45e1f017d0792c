"""A real Kafka broker for the tests: a given one, one in Docker, or one started from jars with Java."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

KAFKA_VERSION = "4.3.1"
IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_DOWNLOAD_S = 300
_READY_S = 60
_STOP_S = 20

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""


class BrokerError(Exception):
    """A broker that should have come up did not."""


class LocalBroker:
    """One KRaft node from jars, on loopback; it keeps its ports and data over a restart."""

    def __init__(self, jars: Path) -> None:
        self._jars = jars
        self._home = Path(tempfile.mkdtemp(prefix="test-broker-"))
        self._port, self._controller = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        properties = _PROPERTIES.format(port=self._port, controller=self._controller, data=self._home / "data")
        self._config = self._home / "server.properties"
        self._config.write_text(properties)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatting = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config))
        formatted = subprocess.run(formatting, check=False, capture_output=True, text=True, timeout=_READY_S)
        if formatted.returncode != 0:
            shutil.rmtree(self._home, ignore_errors=True)
            raise BrokerError(f"the storage could not be formatted: {formatted.stdout}{formatted.stderr}"[-4_000:])

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Come up on the same ports with the same data. Raises BrokerError with the end of the log."""
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
                if b"Kafka Server started" in self._log.read_bytes()[log_start:]:
                    return
            time.sleep(0.1)
        self.stop()
        raise BrokerError(self._log.read_text(errors="replace")[-4_000:])

    def stop(self) -> None:
        """Go down in order, within bounds; also a paused broker."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Die at once. A start soon after is refused for some seconds, until the old session ends."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_S)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Keep the connections, answer nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def _log(self) -> Path:
        return self._home / "broker.log"

    def _java(self, *arguments: str) -> list[str]:
        return ["java", "-Xmx512m", "-cp", f"{self._jars}/*", *arguments]


@contextlib.contextmanager
def running_broker() -> Iterator[str]:
    """Bootstrap servers of a real Kafka while the context lasts. Raises LookupError, saying why, if there is none."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
    elif _docker_answers():
        from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - slow to import, rarely needed

        with KafkaContainer(IMAGE).with_kraft() as container:
            yield container.get_bootstrap_server()
    else:
        broker = LocalBroker(jars())
        try:
            broker.start()
            yield broker.bootstrap_servers
        finally:
            broker.remove()


def jars() -> Path:
    """The folder of Kafka's jars, fetched by Maven once and kept outside the tree. Raises LookupError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "conversation-consumer" / f"kafka-{KAFKA_VERSION}"
    if any(folder.glob("kafka_*.jar")):
        return folder
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise LookupError(f"no KAFKA_BOOTSTRAP_SERVERS, no Docker that answers, and no {' or '.join(missing)}")
    pom = Path(__file__).with_name("pom.xml")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_DOWNLOAD_S)
    except subprocess.SubprocessError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise LookupError(f"Maven could not fetch Kafka's jars: {error}") from error
    partial.rename(folder)
    return folder


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
