"""What all commands share: help, completion, ends by a signal or a bug, and output that pipes well."""

import asyncio
import contextlib
import json
import os
import pty
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from consumer.__main__ import main
from consumer.cli.exit_codes import INTERRUPTED, SOFTWARE, TERMINATED
from consumer.cli.group import CommandGroup
from consumer.cli.progress import progress
from consumer.cli.signals import on_signals
from consumer.tuning import Tuning
from consumer.version import VERSION
from tests.tuned import python

_WITHIN_S = 60.0
_MUCH_LONGER_S = 600
"""How long a process would take if it ignored the signal."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command, those of groups included, with the words that call it."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(main))
CALL = "conversation-consumer "
CURSOR_SHOWN = "\x1b[?25h"
"""The escape sequence that shows the cursor again: the last thing that a progress bar writes."""


def examples(command: click.Command) -> list[str]:
    """The example lines of a help text, without the program's name and without what they are piped into."""
    lines = [line.strip().partition("|")[0] for line in (command.help or "").splitlines()]
    return [line.removeprefix(CALL).strip() for line in lines if line.startswith(CALL)]


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_printed(word: str) -> None:
    assert CliRunner().invoke(main, [word], prog_name="it").stdout == f"it {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "same"),
    [("-h", "--help"), ("help", "--help"), ("help inspect", "inspect --help"), ("verify -h", "verify --help"),
     ("help dead-letters list", "dead-letters list --help"), ("dead-letters -h", "dead-letters --help")],
)  # fmt: skip
def test_help_is_shown_as_people_ask_for_it(words: str, same: str) -> None:
    first, second = (CliRunner().invoke(main, shlex.split(line), prog_name="it") for line in (words, same))
    assert (first.exit_code, first.stdout) == (0, second.stdout)


def test_commands_have_their_help_options_without_their_parent() -> None:
    """Click keeps the option that the first context of a command asks for."""
    dead_letters = main.commands["dead-letters"]
    assert isinstance(dead_letters, click.Group)
    for command in (*main.commands.values(), *dead_letters.commands.values()):
        assert command.make_context(command.name, [], resilient_parsing=True).help_option_names == ["-h", "--help"]


@pytest.mark.parametrize("words", ["help", "help dead-letters"])
def test_the_list_of_commands_has_whole_sentences(words: str) -> None:
    assert "..." not in CliRunner().invoke(main, shlex.split(words)).stdout.partition("Commands:")[2]


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "consumer", "generate", "--output", "-", "--count", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(_WITHIN_S) == 0, said


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_the_examples_of_a_help_text_are_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = COMMANDS[name]
    (tmp_path / "traffic.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert examples(command), f"`{name} --help` has no examples"
    for example in examples(command):
        words = shlex.split(example)
        parent: click.Command = main
        while isinstance(parent, click.Group):
            parent = parent.commands[words.pop(0)]
        parent.make_context(example, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    options = [option for option in COMMANDS[name].params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_a_shell_completes_commands_and_options() -> None:
    complete = BashComplete(main, {}, "conversation-consumer", "_CONVERSATION_CONSUMER_COMPLETE")
    assert {item.value for item in complete.get_completions([], "t")} == {"topics"}
    assert {item.value for item in complete.get_completions(["topics"], "--p")} == {"--partitions"}


ASKING = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_during_the_start_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """PID 1 has no default action that would; elsewhere the exit code shows that the handler was set already."""
    # Many short sleeps: Python 3.14 may begin one between a signal and its handler, and would first finish it.
    (tmp_path / "click.py").write_text(
        f"import time; print('importing', flush=True)\nfor _ in range({10 * _MUCH_LONGER_S}): time.sleep(0.1)",
        encoding="ascii",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "run"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(number)
            assert process.wait(_WITHIN_S) == TERMINATED
    finally:
        process.kill()
        process.wait(_WITHIN_S)


@contextlib.contextmanager
def waiting(*before: str) -> Iterator[subprocess.Popen[str]]:
    """A `run` that waits for a broker that does not answer, for as long as a request may take."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [*before, *python(Tuning(request_timeout_ms=_MUCH_LONGER_S * 1_000)), "consumer", "run"],
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "CC_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}"},
        )  # fmt: skip
        try:
            silent.settimeout(_WITHIN_S)
            connection, _ = silent.accept()
            with connection:
                yield process
        finally:
            process.kill()
            process.communicate(timeout=_WITHIN_S)


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_a_start_that_waits_for_a_broker(number: signal.Signals) -> None:
    with waiting() as process:
        process.send_signal(number)
        _, logged = process.communicate(timeout=_WITHIN_S)
    assert process.returncode == TERMINATED
    assert [json.loads(line)["event"] for line in logged.splitlines()] == ["consumer.stopped"]


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_cancels_work_so_that_it_can_abort(number: signal.Signals) -> None:
    """`dead-letters redrive` and `rekey` have a transaction open."""
    work = """
import asyncio
from consumer.cli.signals import run_until_terminated

async def work():
    print("begun", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("aborted", flush=True)

run_until_terminated(work())
"""
    process = subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        written, _ = process.communicate(timeout=_WITHIN_S)
        assert (written, process.returncode) == ("aborted\n", TERMINATED)
    finally:
        process.kill()
        process.communicate(timeout=_WITHIN_S)


def test_a_run_under_nohup_ignores_a_hangup() -> None:
    with waiting("nohup") as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)


def test_a_closed_terminal_ends_a_run() -> None:
    """The log line about it cannot be written any more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        master, terminal = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "consumer", "run"],
            stdin=terminal, stdout=terminal, stderr=terminal,
            env={**os.environ, "CC_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}"},
        )  # fmt: skip
        try:
            os.close(terminal)
            silent.settimeout(_WITHIN_S)
            connection, _ = silent.accept()
            with connection:
                os.close(master)
                assert process.wait(_WITHIN_S) == TERMINATED
        finally:
            process.kill()
            process.wait(_WITHIN_S)


async def test_a_hangup_asks_and_never_forces() -> None:
    """A closed terminal sends it more than once, and some supervisors send it right after SIGTERM."""
    loop, calls = asyncio.get_running_loop(), list[str]()
    numbers = (signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for sent, expected in (
            ([signal.SIGHUP, signal.SIGHUP], ["ask"]),
            ([signal.SIGUSR1, signal.SIGHUP], ["ask"]),
            ([signal.SIGHUP, signal.SIGUSR1], ["ask", "force"]),
            ([signal.SIGUSR1, signal.SIGUSR1], ["ask", "force"]),
        ):
            calls.clear()
            on_signals(numbers, lambda: calls.append("ask"), lambda: calls.append("force"))
            for number in sent:
                signal.raise_signal(number)
                await asyncio.sleep(0.05)
            assert calls == expected
    finally:
        for number, handler in zip(numbers, before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def test_run_raises_its_limit_of_descriptors() -> None:
    with waiting("prlimit", "--nofile=256:512") as process:
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (512, 512)


@pytest.fixture
def program() -> CommandGroup:
    """A program whose commands end in unexpected ways."""
    group = CommandGroup()

    @group.command()
    def interrupt() -> None:
        raise KeyboardInterrupt

    @group.command()
    def wrong() -> None:
        raise LookupError("hunter2-marked")

    @group.command()
    def colour() -> None:
        click.secho("red", fg="red")

    return group


def test_an_interruption_is_one_line_and_an_exit_code(program: CommandGroup) -> None:
    result = CliRunner().invoke(program, ["interrupt"])
    assert (result.exit_code, result.output) == (INTERRUPTED, "interrupted\n")


def test_a_bug_is_one_line_without_the_text_of_the_error(program: CommandGroup) -> None:
    result = CliRunner().invoke(program, ["wrong"])
    assert result.exit_code == SOFTWARE
    assert result.output.startswith("a bug, please report it to the developers: LookupError in wrong, test_main.py:")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("no_color", "color", "output"),
    [(None, True, "\x1b[31mred\x1b[0m\n"), ("1", True, "red\n"), (None, False, "red\n")],
)
def test_colours_are_for_terminals_without_no_color(
    program: CommandGroup,
    no_color: str | None,
    color: bool,  # noqa: FBT001 - a column of the table
    output: str,
) -> None:
    result = CliRunner(env={"NO_COLOR": no_color}).invoke(program, ["colour"], color=color)
    assert result.output == output


@pytest.mark.parametrize("length", [1_000, None])
def test_a_progress_bar_is_drawn_only_on_a_terminal(
    length: int | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress("reading", length) as advance:
        advance(500)
    assert capfd.readouterr() == ("", "")
    drawn = draw("reading", length, monkeypatch)
    assert "reading" in drawn
    assert ("50%" in drawn) is (length is not None)


def draw(label: str, length: int | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """What half a progress bar writes to a terminal."""
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as terminal, os.fdopen(reading, "rb", buffering=0) as screen:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            with progress(label, length) as advance:
                advance(500)
        drawn = ""
        while CURSOR_SHOWN not in drawn:  # a read returns what the terminal has so far
            drawn += screen.read(4_096).decode()
    return drawn


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_progress_bar_keeps_to_its_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", draw("reading partition 63", 1_000, monkeypatch))
    lines = re.split(r"[\r\n]+", drawn)
    assert "50%" in "".join(lines)
    assert max(map(len, lines)) <= columns
