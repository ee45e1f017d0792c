"""What the commands print is safe on a terminal, wherever the text is from."""

import json
from pathlib import Path

import pytest

from consumer.cli import check
from consumer.cli.exit_codes import exit_on_external_error
from consumer.cli.output import write_json, write_line
from consumer.cli.progress import warn
from consumer.preflight.check_result import CheckResult
from consumer.worker.ports import RetriableError

OBEYED = "\x1b]0;mine\x07 \x9b2J \u202egnp.exe\u2066 \udcff"
"""As a broker, a record or a peer may send it."""
CLI = Path(check.__file__).parent


def test_line_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    write_line(f"a {OBEYED}\nforged")
    write_line(OBEYED, err=True)
    printed = capsys.readouterr()
    assert printed.out.removesuffix("\n").isprintable()
    assert printed.err.removesuffix("\n").isprintable()


@pytest.mark.parametrize("encode", [lambda document: json.dumps(document, ensure_ascii=False), json.dumps])
def test_json_has_them_escaped(encode: object, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"id": OBEYED}
    write_json(encode(document))  # type: ignore[operator]
    printed = capsys.readouterr().out.removesuffix("\n")
    assert printed.isprintable()
    assert json.loads(printed) == document


def test_result_of_a_check_has_none_in_message_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    check._write(CheckResult("group", "warn", f"member at {OBEYED}", f"stop {OBEYED}"))
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert [line.split()[0] for line in lines] == ["warn", "what"]
    assert all(map(str.isprintable, lines))


def test_error_and_warning_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_external_error():
        raise RetriableError(f"connecting to {OBEYED}:9092\nconnecting to b:1")
    warn(f"leader {OBEYED}")
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert len(lines) == 3
    assert all(map(str.isprintable, lines))


def test_no_command_writes_past_the_output() -> None:
    """ruff refuses it as well, unless a line says otherwise."""
    writers = {path.name for path in CLI.glob("*.py") if "click.echo" in path.read_text(encoding="utf-8")}
    assert writers == {"output.py"}
