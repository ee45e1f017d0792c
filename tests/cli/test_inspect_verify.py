"""`inspect`, `verify` and the repair tools without a broker: exit codes, help and output."""

from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from consumer.cli.dead_letters import dead_letters
from consumer.cli.exit_codes import CONFIG, UNAVAILABLE
from consumer.cli.export import export
from consumer.cli.inspect import inspect
from consumer.cli.rekey import rekey
from consumer.cli.render import end_lines, format_duration, number_communications, record_lines, state_lines
from consumer.cli.tables import align, wrap
from consumer.cli.verify import verify
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.query.timeline_view import communications
from consumer.tools.explain import EFFECT_KINDS, Effect, Explanation, explain
from consumer.tools.replay import Replay
from tests.strategies import NESTED_TOPICS, at, make_record, websocket
from tests.worker.scenes import call, rubbish

RULES = Rules()
ID = "e2628953-79cc-bc7a-1162-cc1772e12779"
COMMANDS = pytest.mark.parametrize(
    ("command", "arguments"), [(inspect, ["c1"]), (inspect, ["c1", "--why"]), (verify, []),
     (dead_letters, ["list"]), (dead_letters, ["show"]), (dead_letters, ["redrive"]),
     (dead_letters, ["redrive", "--yes"]), (rekey, ["a", "b"]), (export, ["out", "--format", "csv"])],
    ids=["inspect", "inspect --why", "verify", "list", "show", "redrive", "redrive --yes", "rekey", "export"],
)  # fmt: skip


@COMMANDS
def test_a_problem_of_the_settings_is_one_line(command: click.Command, arguments: list[str]) -> None:
    result = CliRunner(env={"CC_NO_SETTING": "1"}).invoke(command, arguments)
    assert result.exit_code == CONFIG
    assert len(result.stderr.splitlines()) == 2
    assert not result.stdout


@COMMANDS
def test_a_missing_broker_is_reported_in_one_line(
    command: click.Command, arguments: list[str], dead_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address}).invoke(command, arguments)
    assert result.exit_code == UNAVAILABLE
    assert len(result.stderr.splitlines()) == 1
    assert "are CC_BOOTSTRAP_SERVERS" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("time", ["tomorrow", "2026-02-31T00:00:00Z", "1999-01-01T00:00:00Z", ""])
def test_an_invalid_time_is_a_wrong_option(time: str) -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1"}).invoke(inspect, ["c1", "--as-of", time])
    assert result.exit_code == 2
    assert f"{time!r} is not a time such as" in result.stderr


def test_a_past_time_has_no_conclusion() -> None:
    result = CliRunner(env={"CC_BOOTSTRAP_SERVERS": "b:1"}).invoke(inspect, ["c1", "--brief", "--as-of", at(1)])
    assert result.exit_code == 2
    assert "--brief is about now" in result.stderr


@pytest.mark.parametrize("command", [inspect, verify, export])
def test_help_has_examples_and_exit_codes(command: click.Command) -> None:
    text = CliRunner().invoke(command, ["--help"]).stdout
    examples = [line for line in text.splitlines() if line.strip().startswith("conversation-consumer ")]
    assert len(examples) >= 3
    assert "Exit codes: 0 " in text


def explain_call() -> tuple[StoredState, list[Explanation]]:
    """A call with an older event that comes late, and a broken record."""
    replay, explanations = Replay(RULES), []
    for record in (
        call(0, "connected", 5, held=True),
        call(1, "alerting", 600),
        call(2, "disconnected", 4_000, disconnectType="peer"),
        call(3, "connected", 4, held=False),
        rubbish(4),
    ):
        before, outcome = replay.apply(record)
        replay.commit()
        explanations.append(explain(record, RULES, before, outcome))
    stored = replay.store.lookup("c1")
    assert stored is not None
    return stored, explanations


def test_a_conversation_is_rendered_as_tables() -> None:
    stored, _ = explain_call()
    views = communications(stored.state, RULES.park_cycles_max)
    lines = [line.split() for line in state_lines(stored.state, 3, views, None)]
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
    past_views = communications(stored.state, RULES.park_cycles_max, at(100))
    heading = f"newest snapshot {at(4_000)}; 1 of 1 communications live as of {at(100)}, as known now"
    assert heading in state_lines(stored.state, 3, past_views, at(100))


def test_explanations_are_rendered_as_lines() -> None:
    stored, explanations = explain_call()
    numbers = number_communications(communications(stored.state, RULES.park_cycles_max))
    lines = [
        list(record_lines(explanation, numbers, is_consumed=explanation.offset < 4))[1:] for explanation in explanations
    ]
    assert lines[1] == [
        f"offset 1  snapshot {at(600)}  applied",
        f"    arrived {at(600)}",
        f"    #1 call: observed alerting @ {at(600)} snapshot",
        f"    #1 call: - retracted nothing -> connected @ {at(5)} state",
        f"    #1 call: + asserted nothing -> alerting @ {at(5)} snapshot",
        f"    #1 call: + asserted alerting -> connected @ {at(5)} state",
    ]
    assert lines[3][:4] == [
        f"offset 3  snapshot {at(4)}  applied",
        f"    arrived {at(4)}",
        f"    #1 call: better time of connected: {at(5)} state -> {at(4)} state",
        "    #1 call: held: False lost to True",
    ]
    assert lines[4][0] == "offset 4  snapshot -  dead_lettered (bad_json: Input data was truncated)  not consumed yet"
    assert list(end_lines(5, (0, 5), 4, explains=True))[1:] == [
        "5 records among the input's offsets 0 to 5; the group has consumed those before 4",
        "the records consumed explain the published state",
    ]
    assert list(end_lines(5, (2, 5), 4, explains=False))[2:] == [
        "what was before offset 2 is deleted: earlier records of this conversation may be gone",
        "the records consumed do not explain the published state",
    ]


def test_a_record_that_arrived_late_says_how_late() -> None:
    explanation = Explanation(0, 7, "unchanged", timestamp=at(65.5), snapshot_time=at(2))
    assert list(record_lines(explanation, {}, is_consumed=True))[2] == f"    arrived {at(65.5)}, 1m 3.5s later"


def test_eighty_columns_hold_all_of_a_conversation() -> None:
    replay, participant = Replay(RULES), {"purpose": "customer", "userId": ID.upper(), "queueId": ID[::-1]}
    for offset, state in enumerate(("alerting", "connected", "disconnected")):
        share = {"id": ID, "state": state, "disconnectType": "conferenceTransfer", "connectedTime": at(100_000)}
        body = {"id": "c1", "participants": [{"id": ID[::-1], **participant, "screenshares": [share]}]}
        replay.apply(make_record(websocket(NESTED_TOPICS[0], body), seconds=100_000 + offset, key="c1"))
    replay.commit()
    stored = replay.store.lookup("c1")
    assert stored is not None
    views = communications(stored.state, RULES.park_cycles_max)
    wide, narrow = (list(state_lines(stored.state, 3, views, None, width)) for width in (None, 80))
    assert max(map(len, wide)) > 200
    assert max(map(len, narrow)) <= 80
    assert {cell for line in wide[4:6] for cell in line.split() if cell != "-"} <= set(" ".join(narrow).split())


@pytest.mark.parametrize("width", [None, 200, 40])
def test_lines_are_wrapped_at_words(width: int | None) -> None:
    line = "    #1 cobrowse: + asserted alerting -> connected @ 2026-11-29T01:39:50.014Z provider"
    wrapped = list(wrap(["short", line], width))
    assert " ".join(" ".join(wrapped).split()) == f"short {line.strip()}"
    assert wrapped[1].startswith("    #1")
    assert all(piece.startswith(" " * 8) for piece in wrapped[2:])
    assert len(wrapped) == (5 if width == 40 else 2)


@pytest.mark.parametrize("kind", EFFECT_KINDS)
def test_every_kind_of_effect_is_rendered(kind: str) -> None:
    dated = {"time": at(1), "timeClass": "state"}
    sides = ("alone", "joined m1", None) if kind == "placed" else (dated, dated, dated)
    effect = msgspec.convert({"kind": kind, "participantId": "p1", "what": "connected"}, Effect)
    effect = msgspec.structs.replace(effect, before=sides[0], after=sides[1], shown=sides[2])
    explanation = Explanation(0, 7, "applied", effects=(effect,))
    *_, line = record_lines(explanation, {}, is_consumed=True)
    assert line.startswith("    participant p1: ")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, ""), (0, "0s"), (1_250, "1.25s"), (60_000, "1m 0s"), (3_661_001, "1h 1m 1.001s"), (90_000_000, "25h 0s")],
)
def test_a_duration_has_hours_minutes_and_seconds(milliseconds: int | None, text: str) -> None:
    assert format_duration(milliseconds) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert align([("a", "b"), ("long", "")]) == ["a     b", "long  -"]
