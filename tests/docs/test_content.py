"""What single pages say is what the code does: examples, closed sets, the shape of decisions."""

import json
import re
import sqlite3
from datetime import datetime
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner

from consumer.__main__ import main
from consumer.cli import exit_codes
from consumer.core.lifecycle import RANKS
from consumer.core.reasons import DEAD_LETTER_REASONS, DISPOSITIONS, IGNORED_REASONS
from consumer.engine.commit_stats import DECLINED_REASONS
from consumer.tools.verification import EXCLUSIONS
from schemas.state import TimeClass
from schemas.transition import TRANSITION_SCHEMA, Transition
from tests.data.worked_examples import TIME_NAMES, WORKED_EXAMPLES, Example
from tests.docs.pages import ROOT, table, text_of
from tests.live.broker import LOWEST_LEVELS, PINNED_VERSION, TESTED_VERSIONS
from tests.live.standstills import CAUSES, Cause
from tests.strategies import BASE_MS

DOCS = ROOT / "docs"
ORDERING = DOCS / "concepts" / "ordering.md"
DEAD_LETTERS = DOCS / "concepts" / "dead-letters.md"
CONSUME = DOCS / "how-to" / "consume.md"
QUERY = DOCS / "how-to" / "query.md"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
SHORT_NAMES = {name: short for short, name in TIME_NAMES.items()}


def words(cells: list[str]) -> list[str]:
    """Cells without the marks of code."""
    return [cell.replace("`", "") for cell in cells]


def seconds(time: str) -> float:
    """Seconds after the start of everything."""
    return (round(datetime.fromisoformat(time).timestamp() * 1_000) - BASE_MS) / 1_000


def records_of(example: Example) -> str:
    """The records of an example as its row has them."""
    rows = []
    for record in example.records:
        document = json.loads(record.value or b"")
        participant: dict[str, Any] = document["eventBody"]["participants"][0]
        (array,) = participant.keys() - {"id"}
        (communication,) = participant[array]
        times = {SHORT_NAMES[name]: seconds(communication[name]) for name in communication if name in SHORT_NAMES}
        snapshot = (record.timestamp_ms - BASE_MS) / 1_000
        if snapshot != max((time for short, time in times.items() if short != "resume"), default=0):
            times["at"] = snapshot
        rows.append(" ".join([communication["state"], *(f"{name}={time:g}" for name, time in times.items())]))
    medium = array.removesuffix("sessions").removesuffix("s")
    return f"{medium} {'; '.join(rows)}"


def standing_of(example: Example) -> str:
    """The transitions of an example as its row has them: each begins where the one before ends."""
    assert [step[0] for step in example.standing] == [None, *(step[1] for step in example.standing[:-1])]
    return " → ".join(f"{to} @{time:g} {time_class}" for _, to, time, time_class in example.standing)


def test_worked_examples_are_those_that_are_tested() -> None:
    rows = table(ORDERING, "| records | transitions that stand in the end | why |")
    assert [row[:2] for row in rows] == [[records_of(example), standing_of(example)] for example in WORKED_EXAMPLES]
    assert all(len(row) == 3 and row[2] for row in rows)


def test_all_states_and_time_classes_are_explained() -> None:
    ranks = " ".join(row[1] for row in table(ORDERING, "| rank | states |"))
    assert RANKS.keys() <= set(re.findall(r"`([a-z]+)`", ranks))
    classes = [words(row)[0] for row in table(ORDERING, "| class | time | note |")]
    assert classes == list(get_args(TimeClass))


def test_all_dispositions_and_reasons_are_explained() -> None:
    assert [words(row)[0] for row in table(DEAD_LETTERS, "| disposition | meaning |")] == list(DISPOSITIONS)
    ignored, dead = text_of(DEAD_LETTERS).split("## What is ignored\n")[1].split("## What is dead-lettered\n")
    first = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
    assert tuple(first.findall(ignored)) == IGNORED_REASONS
    assert set(first.findall(dead.partition("\n## ")[0])) == set(DEAD_LETTER_REASONS)


def test_all_that_verify_excludes_is_explained() -> None:
    assert [words(row)[0] for row in table(DOCS / "how-to" / "verify.md", "| excluded | conversations |")] == list(
        EXCLUSIONS
    )


def test_reasons_of_incomplete_answers_are_those_of_the_code() -> None:
    sources = ("query/fleet.py", "web/worker_client.py", "kafka/group_view.py")
    code = "".join((ROOT / "consumer" / name).read_text(encoding="utf-8") for name in sources)
    (section,) = re.findall(r"^\| an answer says .*?\n\n", text_of(QUERY), re.MULTILINE | re.DOTALL)
    explained = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(explained) > 9
    assert [reason for reason in explained if reason not in code] == []


def test_transition_is_one_as_it_is_published() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", text_of(CONSUME), re.DOTALL)
    transition = msgspec.json.decode(block, type=Transition)
    assert transition.schema == TRANSITION_SCHEMA
    assert msgspec.json.encode(transition) == msgspec.json.format(block.encode(), indent=-1)


def test_query_keeps_what_the_corrections_leave_standing() -> None:
    (query,) = re.findall(r"```sql\n(.*?)```", text_of(CONSUME), re.DOTALL)
    log = [tuple(words(row)[:2]) for row in table(CONSUME, "| op | id | from | to | |")]
    standing = sorted({name for op, name in log if op == "assert"} - {name for op, name in log if op == "retract"})
    with sqlite3.connect(":memory:") as warehouse:
        warehouse.execute("CREATE TABLE transitions (op, id, kafka_offset)")
        warehouse.executemany("INSERT INTO transitions VALUES (?, ?, ?)", [(*row, n) for n, row in enumerate(log)])
        found = sorted(name for _, name, *_ in warehouse.execute(query))
        assert found == standing
        assert len(found) == 2
        warehouse.execute("INSERT INTO transitions VALUES ('assert', ?, 99)", [log[1][1]])
        assert len(list(warehouse.execute(query))) == 3, "a retracted one that was asserted again stands"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_gets_its_script_for_completion(shell: str) -> None:
    name = "_CONVERSATION_CONSUMER_COMPLETE"
    assert f"{name}={shell}_source" in text_of(DOCS / "how-to" / "operate.md")
    script = CliRunner(env={name: f"{shell}_source"}).invoke(main, prog_name="conversation-consumer")
    assert script.exit_code == exit_codes.OK
    assert f"{name}={shell}_complete" in script.stdout


def test_decisions_are_numbered_and_argued() -> None:
    assert [page.name[:4] for page in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    for page in DECISIONS:
        text = text_of(page)
        assert text.startswith(f"# {page.name[:4]}: ")
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Rejected alternatives"], page.name


STANDING_STILL = DOCS / "standing-still.md"
CAUSES_HEADER = "| cause | seen as | lag | `/readyz` | log | alerts | page | `check` | why not |"


def row_of(cause: Cause) -> list[str]:
    """A cause and its signals as its row has them."""
    reasons: dict[str, list[str]] = {}
    for name, reason in cause.silent.items():
        reasons.setdefault(reason, []).append(name)
    return [
        cause.name,
        cause.seen_as,
        ", ".join(cause.lag),
        ", ".join(cause.readyz),
        ", ".join(f"`{event}`" for event in cause.log),
        ", ".join(f"`{alert}`" for alert in cause.alerts),
        ", ".join(cause.page),
        ", ".join(cause.check),
        "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items()),
    ]


def test_causes_of_a_standstill_are_those_that_are_brought_about() -> None:
    assert table(STANDING_STILL, CAUSES_HEADER) == [row_of(cause) for cause in CAUSES]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_signal_that_does_not_come_has_a_reason(cause: Cause) -> None:
    shown = {
        "lag": cause.lag, "records": "records" in cause.lag or not cause.lag, "readyz": cause.readyz,
        "log": cause.log, "alerts": cause.alerts, "page": cause.page, "check": cause.check,
    }  # fmt: skip
    assert {name for name, signals in shown.items() if not signals} == cause.silent.keys()


def test_reasons_to_decline_are_those_of_the_engine() -> None:
    rows = table(DOCS / "explanation" / "engine.md", "| reason | the record, or its conversation |")
    assert tuple(words(row)[0] for row in rows) == DECLINED_REASONS


def test_versions_of_kafka_are_those_that_are_tested() -> None:
    rows = table(DOCS / "how-to" / "upgrade.md", "| Kafka | features | what is run | result |")
    named = {version for row in rows for version in re.findall(r"[0-9]+\.[0-9]+\.[0-9]+", row[0])}
    assert named == set(TESTED_VERSIONS)
    assert [row[0] for row in rows if f"`{LOWEST_LEVELS}`" in row[1]] == [PINNED_VERSION]
