"""`inspect`, `verify` and the repair tools without a broker: exit codes, help, and what people read."""

import click
import msgspec
import pytest
from click.testing import CliRunner

from consumer.cli.columns import columns, printable
from consumer.cli.dead_letters import dead_letters
from consumer.cli.exits import CONFIG, UNAVAILABLE
from consumer.cli.inspect import inspect
from consumer.cli.rekey import rekey
from consumer.cli.story import duration, end_lines, numbers, record_lines, state_lines
from consumer.cli.verify import verify
from consumer.core.explain import EFFECT_KINDS, Effect, Explanation, explained
from consumer.core.known import Known
from consumer.core.rules import Rules
from consumer.core.view import communications
from consumer.runtime.replay import Replay
from tests.runtime.scenes import call, rubbish
from tests.strategies import at

RULES = Rules()
COMMANDS = pytest.mark.parametrize(
    ("command", "arguments"), [(inspect, ["c1"]), (inspect, ["c1", "--why"]), (verify, []),
     (dead_letters, ["list"]), (dead_letters, ["show"]), (dead_letters, ["redrive"]),
     (dead_letters, ["redrive", "--yes"]), (rekey, ["a", "b"])],
    ids=["inspect", "inspect --why", "verify", "list", "show", "redrive", "redrive --yes", "rekey"],
)  # fmt: skip


@COMMANDS
def test_settings_with_problems_end_with_a_line_each(command: click.Command, arguments: list[str]) -> None:
    result = CliRunner(env={"CC_NO_SETTING": "1"}).invoke(command, arguments)
    assert result.exit_code == CONFIG
    assert len(result.stderr.splitlines()) == 2
    assert not result.stdout


@COMMANDS
def test_a_broker_that_is_not_there_is_told_in_one_line(
    command: click.Command, arguments: list[str], dead_address: str
) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(command, arguments)
    assert result.exit_code == UNAVAILABLE
    assert len(result.stderr.splitlines()) == 1
    assert "are CC_BOOTSTRAP_SERVERS" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("time", ["yesterday", "2026-02-31T00:00:00Z", "1999-01-01T00:00:00Z", ""])
def test_a_time_that_is_none_is_a_wrong_option(time: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1"}).invoke(inspect, ["c1", "--as-of", time])
    assert result.exit_code == 2
    assert f"{time!r} is no time such as" in result.stderr


@pytest.mark.parametrize("command", [inspect, verify])
def test_help_shows_examples_a_line_each_and_the_exit_codes(command: click.Command) -> None:
    told = CliRunner().invoke(command, ["--help"]).stdout
    examples = [line for line in told.splitlines() if line.strip().startswith("conversation-consumer ")]
    assert len(examples) >= 3
    assert "Exit codes: 0 " in told


def story() -> tuple[Known, list[Explanation]]:
    """A call of which an older event comes late, and a broken record."""
    replay, told = Replay(RULES), []
    for record in (
        call(0, "connected", 5, held=True),
        call(1, "alerting", 600),
        call(2, "disconnected", 4_000, disconnectType="peer"),
        call(3, "connected", 4, held=False),
        rubbish(4),
    ):
        before, outcome = replay.take(record)
        replay.settle()
        told.append(explained(record, RULES, before, outcome))
    known = replay.store.lookup("c1")
    assert known is not None
    return known, told


def test_a_conversation_is_read_as_tables() -> None:
    known, _ = story()
    shown = communications(known.state, RULES.park_cycles_max)
    lines = [line.split() for line in state_lines(known.state, 3, shown, None)]
    assert lines[3:] == [
        [],
        ["#", "media", "state", "since", "live", "purpose", "disconnect", "communication", "participant", "user",
         "queue"],
        ["1", "call", "disconnected", at(4_000), "no", "-", "peer", "m1", "p1", "-", "-"],
        [],
        ["time", "#", "media", "from", "to", "after", "time", "of"],
        [at(4), "1", "call", "-", "alerting", "-", "snapshot"],
        [at(4), "1", "call", "alerting", "connected", "0s", "state"],
        [at(4_000), "1", "call", "connected", "disconnected", "1h", "6m", "36s", "state"],
    ]  # fmt: skip
    then = communications(known.state, RULES.park_cycles_max, at(100))
    assert any(
        line == f"newest snapshot {at(4_000)}; 1 of 1 communications live as of {at(100)}, as known now"
        for line in state_lines(known.state, 3, then, at(100))
    )


def test_what_each_record_did_is_read_as_lines() -> None:
    known, told = story()
    numbered = numbers(communications(known.state, RULES.park_cycles_max))
    lines = [list(record_lines(each, numbered, consumed=each.offset < 4))[1:] for each in told]
    assert lines[1] == [
        f"offset 1  snapshot {at(600)}  applied",
        f"    #1 call: observed alerting @ {at(600)} snapshot",
        f"    #1 call: - retracted nothing -> connected @ {at(5)} state",
        f"    #1 call: + asserted nothing -> alerting @ {at(5)} snapshot",
        f"    #1 call: + asserted alerting -> connected @ {at(5)} state",
    ]
    assert lines[3][:3] == [
        f"offset 3  snapshot {at(4)}  applied",
        f"    #1 call: better time of connected: {at(5)} state -> {at(4)} state",
        "    #1 call: held: False lost to True",
    ]
    assert lines[4] == ["offset 4  snapshot -  dead_lettered (bad_json: Input data was truncated)  not consumed yet"]
    assert list(end_lines(5, (0, 5), 4, explains=True))[1:] == [
        "5 records among the input's offsets 0 to 5; the group has consumed those before 4",
        "the records consumed explain the published state",
    ]
    assert list(end_lines(5, (2, 5), 4, explains=False))[2:] == [
        "what was before offset 2 is deleted: earlier records of this conversation may be gone",
        "the records consumed do not explain the published state",
    ]


@pytest.mark.parametrize("kind", EFFECT_KINDS)
def test_every_kind_of_effect_has_its_words(kind: str) -> None:
    dated = {"time": at(1), "timeClass": "state"}
    sides = ("alone", "joined m1", None) if kind == "placed" else (dated, dated, dated)
    effect = msgspec.convert({"kind": kind, "participantId": "p1", "what": "connected"}, Effect)
    effect = msgspec.structs.replace(effect, before=sides[0], after=sides[1], shown=sides[2])
    told = Explanation(0, 7, "applied", effects=(effect,))
    _, _, line = record_lines(told, {}, consumed=True)
    assert line.startswith("    participant p1: ")


@pytest.mark.parametrize(
    ("milliseconds", "read"),
    [(None, ""), (0, "0s"), (1_250, "1.25s"), (60_000, "1m 0s"), (3_661_001, "1h 1m 1.001s"), (90_000_000, "25h 0s")],
)
def test_a_duration_is_read_in_hours_minutes_and_seconds(milliseconds: int | None, read: str) -> None:
    assert duration(milliseconds) == read


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "b"), ("long", "")]) == ["a     b", "long  -"]


def test_what_somebody_sent_does_nothing_to_a_terminal() -> None:
    assert printable("a\x1b[31mb\udcff\nc") == "a\N{REPLACEMENT CHARACTER}[31mb" + 2 * "\N{REPLACEMENT CHARACTER}" + "c"
