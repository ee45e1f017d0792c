"""The image: built from its Dockerfile, run hardened against a real Kafka, stopped in time."""

import asyncio
import base64
import copy
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from consumer.__main__ import main
from consumer.cli import exit_codes
from consumer.cli.exit_codes import INTERRUPTED
from consumer.simulator.traffic import Traffic
from consumer.version import VERSION
from generate.bill import write_bill
from tests.deploy import containers
from tests.deploy.binaries import ORAS
from tests.deploy.containers import container, podman
from tests.deploy.manifests import DEPLOY, ROOT, Manifest, of_kind, one
from tests.deploy.readme import commands
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.sockets import find_free_ports

IMAGE = "localhost/conversation-consumer-deploy-check"
RECORDS = 3_000
DRAIN_S = 20.0
NOT_PODMANS = {"serviceAccountName", "topologySpreadConstraints"}
"""Fields of a pod that only a cluster supports."""
_READY_S = 60.0
_ASK_S = 5.0
_MB = 1_000_000
BILL = "/opt/conversation-consumer/sboms/image.cdx.json"


def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", DEPLOY / "Dockerfile"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `image` leaves the image as an OCI layout."""
    return tmp_path_factory.mktemp("image") / "layout"


@pytest.fixture(scope="module")
def image(layout: Path) -> Iterator[str]:
    """The tag of the image of this checkout."""
    missing = containers.missing()
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}")
    tag = containers.build(IMAGE, containers.base(), layout)
    yield tag
    podman("image", "rm", "--force", tag)


@pytest.mark.deep
@pytest.mark.timeout(900)
def test_the_image_fits_a_platform(image: str) -> None:
    inspected = containers.inspect(image)
    config = inspected["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["conversation-consumer"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == VERSION
    assert labels["revision"].removesuffix("-dirty") == head.stdout.strip()
    assert datetime.fromisoformat(labels["created"]) == datetime.fromisoformat(inspected["Created"])
    base, _, digest = containers.base().partition("@")
    assert labels["base.name"] == base
    assert labels["base.digest"] == (digest or containers.inspect(base)["Digest"])
    added = inspected["Size"] - containers.inspect(containers.base())["Size"]
    print(f"image {inspected['Size'] / _MB:.0f} MB, of which this project {added / _MB:.0f} MB, on {containers.base()}")
    assert added < 60 * _MB
    usage = podman("run", "--rm", "--network=none", *containers.HARDENED, image, "--help")
    assert usage.returncode == 0, usage.stderr
    assert set(main.commands) <= set(usage.stdout.split())
    tools = "import importlib.util as u; print([n for n in ('pip', 'setuptools', 'confluent_kafka') if u.find_spec(n)])"
    python = "/opt/conversation-consumer/bin/python"
    listed = podman("run", "--rm", "--network=none", f"--entrypoint={python}", image, "-c", tools)
    assert listed.stdout.strip() == "[]", listed.stderr
    bill = podman("run", "--rm", "--network=none", "--entrypoint=cat", image, BILL)
    assert bill.stdout == write_bill(ROOT, has_packages=True)


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("image")
def test_the_bill_goes_with_the_image(layout: Path, tmp_path: Path) -> None:
    """By the commands of the README, to another layout in place of a registry."""
    oras, elsewhere = ORAS.build() / "oras", f"{tmp_path / 'elsewhere'}:{VERSION}"
    bill = tmp_path / "build" / "sbom.cdx.json"
    bill.parent.mkdir()
    bill.write_text(write_bill(ROOT, has_packages=True), encoding="utf-8")
    attach, copy_to = commands("oras")
    attach = [argument.replace("build/image", str(layout)) for argument in attach]
    copy_to = [argument.replace("build/image", str(layout)) for argument in copy_to[:-1]]
    discover = ["discover", "--oci-layout", elsewhere, "--format", "json"]
    for arguments in (attach, [*copy_to, "--to-oci-layout", elsewhere], discover):
        done = subprocess.run(
            [oras, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=_READY_S, check=False
        )
        assert done.returncode == 0, done.stderr
    (referrer,) = json.loads(done.stdout)["referrers"]
    assert referrer["artifactType"] == "application/vnd.cyclonedx+json"


@pytest.mark.deep
@pytest.mark.timeout(900)
async def test_a_hardened_container_works_and_stops_in_time(
    image: str, kafka: str, unique_name: UniqueName, tmp_path: Path
) -> None:
    pipeline = Pipeline(kafka, unique_name("image"), tmp_path)
    traffic = Traffic(seed=7, start_ms=now_ms())
    (port,) = find_free_ports(1)
    environ = environ_of(pipeline, port) | {"CC_DRAIN_S": str(DRAIN_S)}
    with container(image, environ) as without_topics:
        assert await _wait(without_topics) == exit_codes.CONFIG
    with container(image, environ, "topics", "--create", f"--partitions={PARTITIONS}") as topics:
        assert await _wait(topics) == exit_codes.OK
    with container(image, environ) as worker:
        await _wait_for_answer(port, "/readyz", worker)
        await pipeline.write_traffic(traffic, RECORDS)
        await pipeline.caught_up(_READY_S)
        exposition = _get(port, "/metrics")
        assert _sum(exposition, "conversation_records_total") == RECORDS
        assert 'engine="native"' in exposition
        print(f"{_assert_confined(worker) / _MB:.0f} MB in memory after {RECORDS} records")
        await pipeline.write_traffic(traffic, RECORDS, skip=RECORDS)  # it is stopped while it consumes these
        began_s = time.monotonic()
        stopped = await asyncio.to_thread(podman, "stop", "--time=45", worker, timeout_s=_READY_S)
        took_s = time.monotonic() - began_s
        assert stopped.returncode == 0, stopped.stderr
        assert await _wait(worker) == exit_codes.OK
        assert took_s < DRAIN_S
        assert "consumer.stopped" in podman("logs", worker).stderr
        print(f"stopped with exit code 0 after {took_s:.1f} s")
    with container(image, environ) as successor:
        await _wait_for_answer(port, "/readyz", successor)
        await pipeline.caught_up(_READY_S)
    judged = await pipeline.judge()
    assert judged.records == 2 * RECORDS


@pytest.mark.deep
@pytest.mark.timeout(900)
async def test_the_pod_of_the_production_overlay_starts(
    image: str, kafka: str, unique_name: UniqueName, rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    pipeline = Pipeline(kafka, unique_name("pod"), tmp_path)
    await pipeline.create()
    (port,), name = find_free_ports(1), f"worker-{uuid.uuid4().hex[:8]}"
    manifests = copy.deepcopy(rendered["overlay-prod"])
    settings = [config for config in of_kind(manifests, "ConfigMap") if "CC_GROUP_ID" in config["data"]]
    # The worker reads the same files, but this broker has no authentication; and port 8080 of the host may be taken.
    settings[0]["data"] |= environ_of(pipeline, port) | {"CC_SECURITY_PROTOCOL": "PLAINTEXT"}
    template = one(manifests, "StatefulSet")["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key not in NOT_PODMANS}
    (worker,) = spec["containers"]
    worker |= {"image": image, "imagePullPolicy": "Never"}
    for field in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):  # podman would run curl inside
        del worker[field]
    (pod_ip,) = [variable for variable in worker["env"] if "valueFrom" in variable]
    pod_ip["value"] = "127.0.0.1"  # podman does not know it in advance
    del pod_ip["valueFrom"]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    for volume in spec["volumes"]:
        volume["secret"] |= {"secretName": f"{name}-{volume['name']}", "optional": False}
    secrets = [
        secret(f"{name}-kafka", username="user", password="a-password", **{"ca.crt": "an-authority"}),
        secret(f"{name}-digest", key="a-key"),
        secret(f"{name}-query", token="a-token-of-the-tests"),
    ]
    with containers.pod([*settings, *secrets, manifest]) as started:
        await _wait_for_answer(port, "/readyz", started)
        _assert_confined(started)
        read = podman("exec", started, "sh", "-c", "cd /etc/conversation-consumer && wc -c */*")
        sizes = {path: int(size) for size, path in (line.split() for line in read.stdout.splitlines()[:-1])}
        assert sizes.keys() == {"digest/key", "kafka/ca.crt", "kafka/password", "kafka/username", "query/token"}
        assert all(sizes.values())


@pytest.mark.deep
@pytest.mark.timeout(900)
async def test_the_services_of_the_compose_file_work_together(
    image: str, kafka: str, unique_name: UniqueName, tmp_path: Path
) -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (port,) = find_free_ports(1)
    here = environ_of(Pipeline(kafka, unique_name("compose"), tmp_path), port)

    def service(name: str) -> AbstractContextManager[str]:
        return container(image, services[name]["environment"] | here, *services[name]["command"])

    with service("topics") as topics:
        assert await _wait(topics) == exit_codes.OK
    probe = [argument.replace("8080", str(port)) for argument in services["worker"]["healthcheck"]["test"][1:]]
    with service("worker") as worker, service("generator") as generator:
        await _wait_for_answer(port, "/readyz", worker)
        probed = podman("exec", worker, *probe)
        assert probed.returncode == 0, probed.stderr
        deadline = time.monotonic() + _READY_S
        while _sum(_get(port, "/metrics"), "conversation_records_total") < RECORDS / 10:
            assert time.monotonic() < deadline, podman("logs", generator).stderr
            await asyncio.sleep(0.1)
        podman("kill", f"--signal={services['generator']['stop_signal']}", generator)
        assert await _wait(generator) == INTERRUPTED
        podman("kill", "--signal=SIGTERM", worker)
        assert await _wait(worker) == exit_codes.OK


def secret(name: str, **data: str) -> Manifest:
    """A Secret with these keys."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def environ_of(pipeline: Pipeline, port: int) -> dict[str, str]:
    """The settings of a worker for a test's topics."""
    settings = pipeline.settings
    return {
        "CC_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CC_GROUP_ID": settings.group_id,
        "CC_INPUT_TOPIC": settings.input_topic,
        "CC_STATE_TOPIC": settings.state_topic,
        "CC_TRANSITIONS_TOPIC": settings.transitions_topic,
        "CC_DEAD_LETTERS_TOPIC": settings.dead_letters_topic,
        "CC_ADMIN_HOST": "0.0.0.0",
        "CC_ADMIN_PORT": str(port),
        "CC_QUERY_PORT": "0",
    }


def _assert_confined(name: str) -> int:
    """Assert that a container has no capabilities and cannot gain any, has seccomp, is not root and writes nothing.

    Returns its bytes in memory.
    """
    text = podman("exec", name, "cat", "/proc/1/status").stdout
    status = dict(line.split(":\t", 1) for line in text.splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for path in ("/", "/tmp", "/opt/conversation-consumer"):
        written = podman("exec", name, "sh", "-c", f"echo > {path}/written")
        assert written.returncode != 0, path
    return int(status["VmRSS"].split()[0]) * 1_024


async def _wait(name: str) -> int:
    """Wait for the end of a container; returns its exit code."""
    waited = await asyncio.to_thread(podman, "wait", name, timeout_s=_READY_S)
    assert waited.returncode == 0, waited.stderr
    return int(waited.stdout)


async def _wait_for_answer(port: int, path: str, name: str) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            _get(port, path)
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < deadline, podman("logs", name).stderr
            await asyncio.sleep(0.1)
        else:
            return


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=_ASK_S) as answer:
        return str(answer.read().decode())


def _sum(metrics: str, name: str) -> float:
    samples = [line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in samples)
