"""The queries of the SQL page run, give the results that it shows, and mean what it says."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec
import pytest

from consumer.tools.export_files import FileFormat
from tests import model
from tests.docs import sql_page
from tests.docs.pages import text_of
from tests.tools.exports import SETTINGS

Legs = dict[tuple[str, ...], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with sql_page.database() as made:
        yield made


@pytest.fixture(scope="module")
def log() -> list[dict[str, Any]]:
    """The operations, with the context that each had."""
    return [
        msgspec.json.decode(record.value or b"")
        for (topic, _), records in sorted(sql_page.published().logs.items())
        if topic == SETTINGS.transitions_topic
        for record in records
    ]


@pytest.fixture(scope="module")
def legs(log: list[dict[str, Any]]) -> Legs:
    """The standing transitions of each communication, with their contexts, in order."""
    standing, last = model.net(log), {operation["id"]: operation for operation in log}
    found: Legs = defaultdict(list)
    for transition in sorted((last[key] for key in standing), key=lambda one: one["eventTime"]):
        found[transition["conversationId"], transition["participantId"], transition["communicationId"]].append(
            transition
        )
    return found


def run(connection: duckdb.DuckDBPyConnection, heading: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql_page.queries()[heading]).fetchall()


def ended_without_connecting(leg: list[dict[str, Any]]) -> bool:
    states = {transition["to"] for transition in leg}
    return "connected" not in states and bool(states & {"disconnected", "terminated"})


def test_results_are_those_of_the_page(connection: duckdb.DuckDBPyConnection) -> None:
    assert sql_page.fill(connection) == text_of(sql_page.PAGE)


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_results_are_the_same_from_every_format(file_format: FileFormat) -> None:
    with sql_page.database(file_format) as other:
        assert sql_page.fill(other) == text_of(sql_page.PAGE)


def test_one_row_of_every_result_is_explained() -> None:
    for section in text_of(sql_page.PAGE).split("\n### ")[1:]:
        _, row, explanation = re.split(r"\n\| ---.*\n(\|.*)", section)
        numbers = re.findall(r"\*\*([\d.]+)\*\*", explanation)
        assert explanation.lstrip("|").count("The first row: ") == 1
        assert numbers
        assert set(numbers) <= set(re.findall(r"[\w.-]+", row)), section.partition("\n")[0]


def test_abandoned_sessions_are_those_that_never_connected(connection: duckdb.DuckDBPyConnection, legs: Legs) -> None:
    sessions = [leg for leg in legs.values() if leg[0]["media"] == "cobrowse"]
    expected = Counter(
        leg[-1]["context"].get("disconnectType")
        for leg in sessions
        if leg[-1]["context"].get("purpose") == "customer" and ended_without_connecting(leg)
    )
    found = {disconnect_type: abandoned for disconnect_type, abandoned, *_ in run(connection, "Abandoned sessions")}
    assert {name: count for name, count in found.items() if count} == expected
    assert expected


def test_peak_is_reached_by_one_step_after_the_other(connection: duckdb.DuckDBPyConnection, legs: Legs) -> None:
    steps = []
    for leg in legs.values():
        connected = [one["eventTime"] for one in leg if one["media"] == "call" and one["to"] == "connected"]
        ended = [one["eventTime"] for one in leg if one["to"] in {"disconnected", "terminated"}]
        steps += [(time, 1) for time in connected[:1]] + [(time, -1) for time in ended[:1] if connected]
    live, peaks = 0, defaultdict[str, int](int)
    for time, change in sorted(steps):
        live += change
        peaks[time[:13]] = max(peaks[time[:13]], live)
    assert [peak for _, peak in run(connection, "Concurrency over time")] == [peaks[hour] for hour in sorted(peaks)]


def test_standing_transitions_are_what_the_log_leaves(
    connection: duckdb.DuckDBPyConnection, log: list[dict[str, Any]]
) -> None:
    standing = Counter(transition["media"] for transition in model.net(log).values())
    assert {row[0]: row[3] for row in run(connection, "Corrections after the fact")} == standing
    assert dict(connection.execute("SELECT media, count(*) FROM transitions GROUP BY ALL").fetchall()) == standing


def test_traffic_has_what_the_queries_are_about(connection: duckdb.DuckDBPyConnection) -> None:
    assert [heading for heading in sql_page.queries() if not run(connection, heading)] == []
    assert len(sql_page.queries()) == 6
