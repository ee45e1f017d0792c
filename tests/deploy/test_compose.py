"""The compose file is valid, and its parts fit together."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prometheus_client import CollectorRegistry

from consumer.__main__ import main
from consumer.environment import parse
from consumer.settings import is_unspecified
from consumer.web.admin_port import AdminServer
from tests.deploy.binaries import HERE
from tests.deploy.containers import BASE, RUST
from tests.deploy.manifests import DEPLOY
from tests.live.broker import PINNED_VERSION

COMPOSE = DEPLOY / "compose"
_PROBE_S = 60
CONFIG: Any = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: Any = CONFIG["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "conversation-consumer")


def test_it_fits_the_schema_of_compose() -> None:
    # From the Go module github.com/compose-spec/compose-go/v2 2.9.0, unchanged, Apache-2.0.
    schema = json.loads((HERE / "compose-spec.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft7Validator(schema).iter_errors(CONFIG)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_valid_settings_and_arguments(name: str) -> None:
    service = SERVICES[name]
    parse(service["environment"], lambda path: path)
    command, *arguments = service["command"]
    main.commands[command].make_context(command, arguments)
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_the_worker_has_more_time_than_a_drain_takes() -> None:
    settings = parse(SERVICES["worker"]["environment"], lambda path: path)
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= settings.drain_s + 20


@pytest.mark.parametrize(("problem", "exit_code"), [(None, 0), ("it has no partitions yet", 1)])
async def test_the_probe_of_the_worker_tells_whether_it_is_ready(problem: str | None, exit_code: int) -> None:
    """With the Python of the image and nothing else, and whatever proxy the environment names."""
    settings = parse(SERVICES["worker"]["environment"], lambda path: path)
    kind, python, flags, program = SERVICES["worker"]["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python3")
    assert f'"127.0.0.1", {settings.admin_port},' in program
    server = AdminServer(CollectorRegistry(), dict, lambda: {"assignment": problem}, print)
    port = await server.start("127.0.0.1", 0)
    command = [sys.executable, flags, program.replace(str(settings.admin_port), str(port))]
    environ = os.environ | {"http_proxy": "http://127.0.0.1:9"}
    try:
        assert await _exit_code(command, environ) == exit_code
    finally:
        await server.stop()
    assert await _exit_code(command, environ) != 0, "nothing listens any more"


async def _exit_code(command: list[str], environ: dict[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=asyncio.subprocess.DEVNULL)
    return await asyncio.wait_for(process.wait(), _PROBE_S)


def test_the_live_page_of_every_worker_is_published_on_this_machine_only() -> None:
    settings = parse(SERVICES["worker"]["environment"], lambda path: path)
    (published,) = SERVICES["worker"]["ports"]
    address, _, port = published.split(":")
    assert (address, int(port)) == ("127.0.0.1", settings.query_port)
    assert is_unspecified(settings.query_host)


def test_the_broker_has_the_version_of_the_tests() -> None:
    assert SERVICES["kafka"]["image"].startswith(f"apache/kafka:{PINNED_VERSION}@")


def test_images_of_others_are_pinned_by_digest() -> None:
    """A tag may be moved to another image; Dependabot moves tag and digest together."""
    images = {service["image"] for service in SERVICES.values() if "image" in service} - {"conversation-consumer"}
    assert len(images) > 2
    for image in (*images, BASE, RUST):
        assert re.fullmatch(r"[a-z./]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_every_file_that_is_mounted_exists() -> None:
    sources = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    assert sources
    assert [source for source in sources if not (COMPOSE / source).exists()] == []


def test_prometheus_scrapes_under_the_job_of_the_rules() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert job["job_name"] == "conversation-consumer"
    assert discovery["names"] == ["worker"]
    assert discovery["port"] == parse(SERVICES["worker"]["environment"], lambda path: path).admin_port


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "prometheus.yaml", tmp_path)
    checked = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    datasources = yaml.safe_load((COMPOSE / "grafana/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    (datasource,) = datasources["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    folder = yaml.safe_load((COMPOSE / "grafana/dashboards/conversation-consumer.yaml").read_text(encoding="utf-8"))
    (provider,) = folder["providers"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["../components/monitoring/dashboards"] == provider["options"]["path"]
