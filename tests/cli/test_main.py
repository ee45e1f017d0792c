"""What all commands have in common: help, completion, ends by signal and by bug, and output that pipes well."""

import asyncio
import contextlib
import json
import os
import pty
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
from consumer.cli.exits import INTERRUPTED, SOFTWARE, TERMINATED
from consumer.cli.program import Program
from consumer.cli.progress import progress
from consumer.cli.signals import on_signals
from consumer.version import VERSION

_WITHIN_S = 60.0
_MUCH_LONGER_S = 600
"""How long a process would take that paid no attention to a signal."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it, those of groups as well."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(main))
CALL = "conversation-consumer "
CURSOR_SHOWN = "\x1b[?25h"
"""How a terminal is told to show its cursor again: the last that a progress bar writes."""


def examples(command: click.Command) -> list[str]:
    """The example lines of a help text, without the program's name and what they are piped into."""
    lines = [line.strip().partition("|")[0] for line in (command.help or "").splitlines()]
    return [line.removeprefix(CALL).strip() for line in lines if line.startswith(CALL)]


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"], prog_name="it").stdout == f"it {VERSION}\n"


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_a_help_text_has_examples_that_the_command_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_every_option_says_what_it_is_for(name: str) -> None:
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


def test_a_shell_completes_commands_and_options() -> None:
    complete = BashComplete(main, {}, "conversation-consumer", "_CONVERSATION_CONSUMER_COMPLETE")
    assert {each.value for each in complete.get_completions([], "t")} == {"topics"}
    assert {each.value for each in complete.get_completions(["topics"], "--p")} == {"--partitions"}


ASKING = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_during_the_start_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """As PID 1 there is no default that would; elsewhere the exit code shows that the handler was there already."""
    (tmp_path / "click.py").write_text(
        f"import time; print('importing', flush=True); time.sleep({_MUCH_LONGER_S})", encoding="ascii"
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
    """A `run` that waits for a broker which does not answer, as long as a request may take."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "consumer", "run"], stderr=subprocess.PIPE, text=True,
            env={
                **os.environ,
                "CC_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}",
                "CC_REQUEST_TIMEOUT_MS": f"{_MUCH_LONGER_S}000",
            },
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
        _, told = process.communicate(timeout=_WITHIN_S)
    assert process.returncode == TERMINATED
    assert [json.loads(line)["event"] for line in told.splitlines()] == ["consumer.stopped"]


@pytest.mark.parametrize("number", ASKING)
def test_long_work_is_cancelled_so_that_it_can_abort(number: signal.Signals) -> None:
    """`dead-letters redrive` and `rekey` have a transaction open."""
    work = """
import asyncio
from consumer.cli.long_work import run_until_terminated

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


def test_a_run_under_nohup_does_not_heed_a_hangup() -> None:
    with waiting("nohup") as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)


def test_a_terminal_that_is_closed_ends_a_run_as_asked() -> None:
    """The line that says so cannot be written any more."""
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


async def test_a_hangup_asks_and_never_presses() -> None:
    """A closed terminal sends it more than once, and some supervisors send it right after SIGTERM."""
    loop, told = asyncio.get_running_loop(), list[str]()
    numbers = (signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for sent, expected in (
            ([signal.SIGHUP, signal.SIGHUP], ["ask"]),
            ([signal.SIGUSR1, signal.SIGHUP], ["ask"]),
            ([signal.SIGHUP, signal.SIGUSR1], ["ask", "press"]),
            ([signal.SIGUSR1, signal.SIGUSR1], ["ask", "press"]),
        ):
            told.clear()
            on_signals(numbers, lambda: told.append("ask"), lambda: told.append("press"))
            for number in sent:
                signal.raise_signal(number)
                await asyncio.sleep(0.05)
            assert told == expected
    finally:
        for number, handler in zip(numbers, before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def test_as_many_descriptors_are_used_as_there_may_be() -> None:
    with waiting("prlimit", "--nofile=256:512") as process:
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (512, 512)


@pytest.fixture
def program() -> Program:
    """A program whose commands end as no command of ours does."""
    group = Program()

    @group.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    @group.command()
    def wrong() -> None:
        raise LookupError("hunter2-marked")

    @group.command()
    def coloured() -> None:
        click.secho("red", fg="red")

    return group


def test_an_interruption_is_one_line_and_a_code(program: Program) -> None:
    result = CliRunner().invoke(program, ["interrupted"])
    assert (result.exit_code, result.output) == (INTERRUPTED, "interrupted\n")


def test_a_bug_is_one_line_without_any_value_of_a_record(program: Program) -> None:
    result = CliRunner().invoke(program, ["wrong"])
    assert result.exit_code == SOFTWARE
    assert result.output.startswith("a bug, please tell the developers: LookupError in wrong, test_main.py:")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("no_color", "color", "shown"), [(None, True, "\x1b[31mred\x1b[0m\n"), ("1", True, "red\n"), (None, False, "red\n")]
)
def test_colours_are_for_terminals_whose_users_want_them(
    program: Program,
    no_color: str | None,
    color: bool,  # noqa: FBT001 - a column of the table
    shown: str,
) -> None:
    result = CliRunner(env={"NO_COLOR": no_color}).invoke(program, ["coloured"], color=color)
    assert result.output == shown


@pytest.mark.parametrize("length", [1_000, None])
def test_progress_is_drawn_on_a_terminal_and_nowhere_else(
    length: int | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress("reading", length) as advance:
        advance(500)
    assert capfd.readouterr() == ("", "")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as seen:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            with progress("reading", length) as advance:
                advance(500)
        drawn = ""
        while CURSOR_SHOWN not in drawn:  # a terminal hands out what it has by then
            drawn += seen.read(4_096).decode()
    assert "reading" in drawn
    assert ("50%" in drawn) is (length is not None)
