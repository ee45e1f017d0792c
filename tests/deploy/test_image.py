"""The image: built from its Dockerfile, run hardened against a real Kafka, stopped in time."""

import asyncio
import base64
import copy
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from consumer.__main__ import main
from consumer.cli import exit_codes
from consumer.cli.exit_codes import INTERRUPTED
from consumer.simulator.traffic import Traffic
from tests.deploy import containers
from tests.deploy.containers import container, podman
from tests.deploy.manifests import DEPLOY, ROOT, Manifest, of_kind, one
from tests.live.conftest import UniqueName
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.sockets import find_free_ports

TAG = "localhost/conversation-consumer:deploy-check"
RECORDS = 3_000
DRAIN_S = 20.0
NOT_PODMANS = {"serviceAccountName", "topologySpreadConstraints"}
"""Fields of a pod that only a cluster supports."""
_READY_S = 60.0
_ASK_S = 5.0
_MB = 1_000_000
_COMPILE_S = 580.0
CRATE = ROOT / "consumer" / "engine" / "rust"
EXTENSION = "consumer/engine/_native.abi3.so"


def test_the_dockerfile_is_linted() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", DEPLOY / "Dockerfile"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("has_compiler", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_wheel_has_all_files_of_the_packages_and_no_others(
    tmp_path: Path,
    has_compiler: bool,  # noqa: FBT001 - a column
) -> None:
    """With the engine where a Rust compiler is, and without it the same source installs as well."""
    if has_compiler and shutil.which("cargo") is None:
        assert "CI" not in os.environ, "CI builds the native engine, and there is no cargo"
        pytest.skip("there is no cargo")
    wheel = build_wheel(tmp_path, has_compiler=has_compiler)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (scripts,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "conversation-consumer = consumer.__main__:main" in archive.read(scripts).decode()
        (found,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = message_from_bytes(archive.read(found))
    assert metadata.get_all("Provides-Extra") == ["demo", "parquet"], "what only developers need is not published"
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("consumer", "schemas")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(CRATE)
    }
    assert packed == sources - {EXTENSION} | ({EXTENSION} if has_compiler else set())
    assert engine_of(wheel, tmp_path) == ("native" if has_compiler else "python")


def build_wheel(folder: Path, *, has_compiler: bool) -> Path:
    """Build the wheel from a copy: setuptools keeps earlier builds in the folder, with deleted modules."""
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in ("consumer", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "_native*.so")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    environ = os.environ | {"CARGO_TARGET_DIR": str(CRATE / "target")}  # which `make engine` has filled
    if not has_compiler:
        folders = environ["PATH"].split(os.pathsep)
        environ["PATH"] = os.pathsep.join(name for name in folders if not (Path(name) / "cargo").exists())
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source],
        check=True, timeout=_COMPILE_S, capture_output=True, env=environ,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def engine_of(wheel: Path, folder: Path) -> str:
    """The engine that runs from an unpacked wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    program = "from consumer.engine.choice import name_engine; print(name_engine('auto'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder / "unpacked", check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_the_locks_are_of_the_runtime_only() -> None:
    runtime = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    demo = (ROOT / "requirements" / "demo.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(confluent-kafka|duckdb|pyarrow)==", runtime, re.MULTILINE)
    assert "confluent-kafka==" in demo
    pins = {line for line in runtime.splitlines() if "==" in line}
    assert pins <= set(demo.splitlines()), "the image and the demo differ in a version"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["build-system"]["requires"] == [
        "setuptools>=77",
        "setuptools-rust>=1.10",
    ]  # what `make lock` locks for the image's build


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The tag of the image of this checkout."""
    missing = containers.missing()
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}")
    containers.build(TAG, containers.base())
    yield TAG
    podman("image", "rm", "--force", TAG)


@pytest.mark.deep
@pytest.mark.timeout(900)
def test_the_image_fits_a_platform(image: str) -> None:
    inspected = containers.inspect(image)
    config = inspected["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["conversation-consumer"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
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
        assert _sum(_get(port, "/metrics"), "conversation_records_total") == RECORDS
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
    with service("worker") as worker, service("generator") as generator:
        await _wait_for_answer(port, "/readyz", worker)
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
