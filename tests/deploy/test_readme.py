"""deploy/README.md says what is so. Its kubectl commands run in test_cluster.py."""

import re
import shlex

import pytest

from consumer.__main__ import main
from consumer.adapters.monitoring.metrics import Metrics
from consumer.runtime.kafka_tools import rewind_command
from consumer.runtime.settings import Settings, described
from tests.deploy.manifests import COMPONENTS, DEPLOY, ROOT
from tests.deploy.readme import TEXT, commands


def test_every_component_and_overlay_is_listed() -> None:
    assert set(re.findall(r"^\| `components/([a-z-]+)`", TEXT, re.MULTILINE)) == set(COMPONENTS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:base|components|overlays|compose)/[\w./-]*)`", TEXT))))
def test_a_path_exists(path: str) -> None:
    assert (DEPLOY / path).exists()


def test_commands_of_other_programs_name_files_that_exist() -> None:
    named = [argument for program in ("docker", "kubectl") for line in commands(program) for argument in line]
    paths = [each for each in named if each.startswith("deploy/")]
    assert paths
    assert [each for each in paths if not (ROOT / each).exists()] == []


def test_every_setting_and_metric_in_the_text_exists() -> None:
    assert set(re.findall(r"CC_[A-Z_]+[A-Z]", TEXT)) <= {name for name, _, _ in described()}
    assert set(re.findall(r"conversation_[a-z_]+", TEXT)) <= {each.name for each in Metrics().described()}


def test_what_runs_inside_a_pod_is_a_command_of_the_program() -> None:
    inside = [line[line.index("--") + 1 :] for line in commands("kubectl") if "exec" in line]
    assert inside
    for program, command, *arguments in inside:
        assert program == "conversation-consumer"
        main.commands[command].make_context(command, arguments)


def test_a_command_line_is_one_that_the_program_takes() -> None:
    given = commands("conversation-consumer")
    assert {"topics", "rekey", "verify"} <= {command for command, *_ in given}
    for command, *arguments in given:
        main.commands[command].make_context(command, arguments)


def test_the_command_of_the_rebuild_is_the_one_that_the_service_tells() -> None:
    settings = Settings(bootstrap_servers="kafka-0.example.com:9094", security_protocol="SASL_SSL")
    (told,) = commands("kafka-consumer-groups")
    assert ["kafka-consumer-groups", *told] == shlex.split(rewind_command(settings).strip("`"))


def test_an_address_on_the_laptop_is_published_there() -> None:
    addresses = re.findall(r"http://localhost:(\d+)", TEXT)
    published = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    assert addresses
    assert [port for port in addresses if f"127.0.0.1:{port}:" not in published] == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"`make ([a-z-]+)`", TEXT))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert [each for each in targets if not re.search(rf"^{each}:", makefile, re.MULTILINE)] == []
