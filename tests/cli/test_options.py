"""What all commands that connect take: brokers, group, and a file of settings."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from consumer.cli.exit_codes import CONFIG, load_settings
from consumer.cli.options import add_connection, parse_env_file
from consumer.cli.output import write_line
from tests.cli.test_main import COMMANDS

WITHOUT_KAFKA = {"demo"}
CONNECTING = [
    name for name, command in COMMANDS.items() if not isinstance(command, click.Group) and name not in WITHOUT_KAFKA
]


@click.command()
@add_connection
def show() -> None:
    settings = load_settings()
    write_line(f"{settings.bootstrap_servers} {settings.group_id} {settings.input_topic}")


def shown(*arguments: str, **environ: str) -> str:
    result = CliRunner(env=environ).invoke(show, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.mark.parametrize("name", CONNECTING)
def test_every_command_that_connects_takes_them(name: str) -> None:
    assert {"bootstrap_servers", "group", "env_file"} <= {option.name for option in COMMANDS[name].params}


def test_options_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("CC_BOOTSTRAP_SERVERS=file:1\nCC_GROUP_ID=of-file\nCC_INPUT_TOPIC='in-file'\n")
    given = ("--env-file", str(file))
    assert shown(*given) == "file:1 of-file in-file"
    assert shown(*given, CC_GROUP_ID="of-environment") == "file:1 of-environment in-file"
    everywhere = (*given, "--group", "of-option", "--bootstrap-servers", "option:1")
    assert shown(*everywhere, CC_GROUP_ID="of-environment") == "option:1 of-option in-file"
    assert shown(CC_BOOTSTRAP_SERVERS="b:1", CC_GROUP_ID="g", CC_INPUT_TOPIC="t") == "b:1 g t"


def test_a_command_uses_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("CC_BOOTSTRAP_SERVERS=b:1\nCC_DRAIN_S=soon\n")
    result = CliRunner().invoke(COMMANDS["verify"], ["--env-file", str(file)])
    assert (result.exit_code, result.stderr) == (CONFIG, "CC_DRAIN_S: expected a number above 0, not 'soon'\n")


def test_a_file_has_comments_quotes_and_exports() -> None:
    text = "# brokers\n\nA=1\nexport B = 'two words'\n" + 'C="a=b"\nD=\nE=it\'s\n'
    with pytest.raises(ValueError, match="line 4 is not NAME=value"):
        parse_env_file(text)
    expected = {"A": "1", "B": "two words", "C": "a=b", "D": "", "E": "it's"}
    assert parse_env_file(text.replace("B = ", "B=")) == expected


def test_a_secret_in_a_broken_line_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("hunter2 hunter2\n")
    result = CliRunner().invoke(show, ["--env-file", str(file)])
    assert result.exit_code == 2
    assert "line 1 is not NAME=value" in result.stderr
    assert "hunter2" not in result.output


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(show, ["--env-file", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "cannot read" in result.stderr
