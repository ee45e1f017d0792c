"""deploy/README.md says what is so. Its kubectl commands run in test_cluster.py; tests/docs looks at more."""

import re
import shlex

import pytest

from consumer.__main__ import main
from consumer.kafka_commands import rewind_command
from consumer.settings import Settings
from tests.deploy.manifests import COMPONENTS, DEPLOY
from tests.deploy.readme import TEXT, commands


def test_every_component_and_overlay_is_listed() -> None:
    assert set(re.findall(r"^\| `components/([a-z-]+)`", TEXT, re.MULTILINE)) == set(COMPONENTS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:base|components|overlays|compose)/[\w./-]*)`", TEXT))))
def test_a_path_exists(path: str) -> None:
    assert (DEPLOY / path).exists()


def test_commands_inside_a_pod_are_valid() -> None:
    inside = [line[line.index("--") + 1 :] for line in commands("kubectl") if "exec" in line]
    assert inside
    for program, command, *arguments in inside:
        assert program == "conversation-consumer"
        main.commands[command].make_context(command, arguments)


def test_the_command_of_the_rebuild_is_that_of_the_service() -> None:
    settings = Settings(bootstrap_servers="kafka-0.example.com:9094", security_protocol="SASL_SSL")
    (arguments,) = commands("kafka-consumer-groups")
    assert ["kafka-consumer-groups", *arguments] == shlex.split(rewind_command(settings).strip("`"))


def test_an_address_on_the_laptop_is_published_there() -> None:
    addresses = re.findall(r"http://localhost:(\d+)", TEXT)
    published = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    assert addresses
    assert [port for port in addresses if not re.search(rf"127\.0\.0\.1:{port}[:-]", published)] == []
