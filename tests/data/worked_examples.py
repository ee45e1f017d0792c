"""The worked examples of the ordering rules: records in, standing transitions out.

Times are seconds after an arbitrary start. The records of an example may come in any order, any number of times.
"""

from dataclasses import dataclass
from typing import Any

from consumer.core.record import Record
from tests.strategies import NESTED_TOPICS, at, make_record, websocket

Step = tuple[str | None, str, float, str]
"""from, to, seconds, time class."""

TIME_NAMES = {
    "p": "providerEventTime",
    "a": "startAlertingTime",
    "c": "connectedTime",
    "d": "disconnectedTime",
    "k": "parkTime",
    "resume": "resumeTime",
}


@dataclass(frozen=True)
class Example:
    """One communication `m1` of participant `p1` in conversation `c1`."""

    name: str
    records: tuple[Record, ...]
    standing: tuple[Step, ...]


def example(name: str, array: str, rows: list[dict[str, Any]], standing: list[Step]) -> Example:
    """An example from rows of `state`, times under their short names, and the snapshot time `at`.

    Without `at` the snapshot time is the newest time of the row; `resume` is a plan and does not count.
    """
    records = []
    for offset, row in enumerate(rows):
        times = {TIME_NAMES[name]: at(row[name]) for name in row if name in TIME_NAMES}
        communication = {"id": "m1", "state": row["state"]} | times
        body = {"id": "c1", "participants": [{"id": "p1", array: [communication]}]}
        newest = row.get("at", max((row[name] for name in "pacdk" if name in row), default=0))
        records.append(make_record(websocket(NESTED_TOPICS[0], body), seconds=newest, offset=offset))
    return Example(name, tuple(records), tuple(standing))


COBROWSE = "cobrowsesessions"

WORKED_EXAMPLES = (
    example(
        "a life with the provider's times",
        COBROWSE,
        [
            {"state": "alerting", "p": 1},
            {"state": "connected", "p": 5, "c": 5},
            {"state": "disconnected", "p": 9, "d": 9},
        ],
        [
            (None, "alerting", 1, "provider"),
            ("alerting", "connected", 5, "provider"),
            ("connected", "disconnected", 9, "provider"),
        ],
    ),
    example(
        "a control change, seen first",
        COBROWSE,
        [{"state": "connected", "p": 400, "c": 5.1}],
        [(None, "connected", 5.1, "state")],
    ),
    example(
        "a control change, and the connection itself",
        COBROWSE,
        [{"state": "connected", "p": 400, "c": 5.1}, {"state": "connected", "p": 5, "c": 5.1}],
        [(None, "connected", 5, "provider")],
    ),
    example(
        "a delayed alerting without a time",
        "calls",
        [{"state": "connected", "c": 5}, {"state": "alerting", "at": 600}],
        [(None, "alerting", 5, "snapshot"), ("alerting", "connected", 5, "state")],
    ),
    example(
        "two clocks that disagree",
        "calls",
        [{"state": "connected", "c": 12}, {"state": "disconnected", "d": 11.8, "at": 12}],
        [(None, "connected", 12, "state"), ("connected", "disconnected", 12, "state")],
    ),
    example(
        "parked and resumed",
        "messages",
        [
            {"state": "connected", "c": 5},
            {"state": "parked", "k": 60},
            {"state": "connected", "c": 5, "k": 60, "resume": 3600, "at": 300},
        ],
        [
            (None, "connected", 5, "state"),
            ("connected", "parked", 60, "state"),
            ("parked", "connected", 300, "snapshot"),
        ],
    ),
    example(
        "a body of the REST API says when it was alerted",
        "calls",
        [{"state": "connected", "a": 2, "c": 5}],
        [(None, "alerting", 2, "state"), ("alerting", "connected", 5, "state")],
    ),
    example(
        "first seen when it was over",
        "calls",
        [{"state": "terminated", "c": 5, "d": 80}],
        [
            (None, "connected", 5, "state"),
            ("connected", "disconnected", 80, "state"),
            ("disconnected", "terminated", 80, "state"),
        ],
    ),
    example(
        "a clock an hour ahead",
        COBROWSE,
        [{"state": "connected", "p": 3605, "c": 5.1, "at": 5.2}],
        [(None, "connected", 5.1, "state")],
    ),
    example(
        "a thread that is parked twice",
        "messages",
        [
            {"state": "connected", "c": 5},
            {"state": "parked", "c": 5, "k": 60},
            {"state": "connected", "c": 5, "k": 60, "at": 300},
            {"state": "parked", "c": 5, "k": 200},
        ],
        [
            (None, "connected", 5, "state"),
            ("connected", "parked", 60, "state"),
            ("parked", "connected", 200, "snapshot"),
            ("connected", "parked", 200, "state"),
        ],
    ),
    example(
        "upper bounds only",
        "chats",
        [{"state": "alerting", "at": 2}, {"state": "alerting", "at": 4}, {"state": "alerting", "at": 3}],
        [(None, "alerting", 2, "snapshot")],
    ),
    example(
        "a tie",
        COBROWSE,
        [{"state": "connected", "p": 5, "c": 5}, {"state": "alerting", "p": 5}],
        [(None, "alerting", 5, "provider"), ("alerting", "connected", 5, "provider")],
    ),
    example(
        "an unknown state",
        "calls",
        [{"state": "connected", "c": 5}, {"state": "vanished", "c": 5, "d": 8}],
        [(None, "connected", 5, "state"), ("connected", "vanished", 8, "state")],
    ),
    example(
        "two states before live at the same time",
        COBROWSE,
        [{"state": "alerting", "p": 5}, {"state": "dialing", "p": 5}],
        [(None, "dialing", 5, "provider"), ("dialing", "alerting", 5, "provider")],
    ),
)
