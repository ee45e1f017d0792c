"""What the worker reports, as log lines and series."""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import generate_latest

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import summary
from consumer.core.step import step
from consumer.engine.commit_stats import CommitStats
from consumer.engine.state_store import StateStore
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic
from consumer.simulator.traffic import records as traffic_records
from consumer.telemetry import logs
from consumer.telemetry.log_events import PROGRESS_S, ServiceTelemetry
from consumer.telemetry.metrics import Metrics
from consumer.worker.ports import FencedError, LaneRestored, RetriableError, Telemetry
from consumer.worker.standstill import Lag, Standstill
from tests.outcomes import expect_applied

MARK = "mark-of-a-person"
WALL_S = 1_800_000_000.0


class Scene:
    """A telemetry with clocks that the test moves, and what it wrote."""

    def __init__(self) -> None:
        self.monotonic_s = 50.0
        self.metrics = Metrics(lambda: WALL_S)
        self.telemetry = ServiceTelemetry(self.metrics, lambda: self.monotonic_s, lambda: WALL_S)
        self.port: Telemetry = self.telemetry
        self.stream = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        """The lines since the last call, without their timestamps."""
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        self.stream.seek(0)
        self.stream.truncate()
        return [{key: value for key, value in line.items() if key != "timestamp"} for line in lines]

    def exposition(self) -> list[str]:
        return generate_latest(self.metrics.registry).decode().splitlines()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    level = root.level
    logs.configure(Settings(bootstrap_servers="b:1"), scene.stream)
    yield scene
    root.setLevel(level)
    structlog.reset_defaults()


def stats(**fields: Any) -> CommitStats:
    return CommitStats(records=Counter({("applied", ""): 4, ("ignored", "heartbeat"): 1}), **fields)


def test_many_commits_of_all_lanes_make_one_line(scene: Scene) -> None:
    for number in range(100):
        scene.port.committed(
            number % 2,
            stats(
                asserted=Counter({("call", "", "alerting"): 2}), retracted=Counter({"call": 1}), ages_ms=[number * 10]
            ),
            0.001 * number,
            number,
        )
        scene.monotonic_s += PROGRESS_S / 100
    scene.telemetry.progress()
    assert scene.lines() == [
        {
            "event": "consumer.progress",
            "level": "info",
            "seconds": 10.0,
            "consumed": 500,
            "applied": 400,
            "unchanged": 0,
            "ignored": 100,
            "dead_lettered": 0,
            "transitions": 200,
            "corrections": 100,
            "evicted": 0,
            "commits": 100,
            "slowest_commit_s": 0.099,
            "lag_records": 98 + 99,
            "oldest_age_s": 0.99,
        }
    ]
    assert 'conversation_records_total{disposition="applied",reason=""} 400.0' in scene.exposition()


def test_progress_without_commits_is_not_logged(scene: Scene) -> None:
    """And what is left at the end is logged then, however short the interval."""
    scene.monotonic_s += 10 * PROGRESS_S
    scene.telemetry.progress()
    scene.telemetry.progress(now=True)
    assert scene.lines() == []
    scene.port.committed(0, stats(), 0.1, None)
    assert [line["consumed"] for line in scene.lines()] == [5]
    scene.port.committed(0, stats(), 0.1, None)
    assert scene.lines() == []
    scene.telemetry.progress(now=True)
    assert [line["consumed"] for line in scene.lines()] == [5]


def test_progress_leaves_out_the_lag_of_a_closed_lane(scene: Scene) -> None:
    scene.port.committed(0, stats(), 0.1, 70)
    scene.port.committed(1, stats(), 0.1, 5)
    scene.port.lane_closed(0, "revoked")
    scene.lines()
    scene.telemetry.progress(now=True)
    assert [line["lag_records"] for line in scene.lines()] == [5]


def test_progress_has_the_lag_of_a_lane_that_does_not_commit(scene: Scene) -> None:
    scene.port.committed(0, stats(), 0.1, 70)
    scene.port.lagging(0, Lag(500), None)
    scene.telemetry.progress(now=True)
    assert [line["lag_records"] for line in scene.lines()] == [500]
    assert 'conversation_lag_records{partition="0"} 500.0' in scene.exposition()


def test_every_event_of_a_lane_is_one_line(scene: Scene) -> None:
    scene.port.rebalanced("assigned", (3, 4))
    scene.port.restoring(3, 1_500)
    scene.port.restored(3, LaneRestored(0, 0, 1.23456))
    scene.port.commit_failed(3, RetriableError("commit: RequestTimedOutError"))
    scene.port.commit_failed(3, FencedError("commit: another worker took the partition over"))
    scene.port.breaker_opened(3, "200 dead letters in a row")
    scene.port.rebalanced("revoked", [3])
    scene.port.lane_closed(3, "revoked")
    lines = scene.lines()
    assert "restart the worker" in lines[4].pop("remedy")
    assert lines == [
        {"event": "group.assigned", "level": "info", "partitions": [3, 4]},
        {
            "event": "lane.opened", "level": "info", "partition": 3, "conversations": 0, "state_bytes": 0,
            "seconds": 1.235,
        },
        {
            "event": "lane.failed", "level": "warning", "partition": 3, "error": "commit: RequestTimedOutError",
            "repeated": 0,
        },
        {
            "event": "lane.fenced", "level": "warning", "partition": 3,
            "error": "commit: another worker took the partition over", "repeated": 0,
        },
        {"event": "breaker.opened", "level": "error", "partition": 3, "cause": "200 dead letters in a row"},
        {"event": "group.revoked", "level": "info", "partitions": [3]},
        {"event": "lane.closed", "level": "info", "partition": 3, "reason": "revoked"},
    ]  # fmt: skip
    assert not [line for line in scene.exposition() if 'partition="3"' in line]


def test_a_standstill_is_one_line_with_cause_and_remedy(scene: Scene) -> None:
    since_s = scene.monotonic_s - 12.0
    scene.port.lagging(2, Lag(None), since_s)
    scene.port.stands_still(2, Standstill("leader", "no broker leads the partition", since_s), "see that it runs")
    assert 'conversation_standstill_seconds{partition="2"} 12.0' in scene.exposition()
    scene.port.moves_again(2)
    scene.port.lagging(2, Lag(0), None)
    assert 'conversation_standstill_seconds{partition="2"} 0.0' in scene.exposition()
    assert scene.lines() == [
        {
            "event": "lane.stands_still", "level": "warning", "partition": 2, "cause": "leader",
            "message": "no broker leads the partition", "remedy": "see that it runs",
        },
        {"event": "lane.moves_again", "level": "info", "partition": 2},
    ]  # fmt: skip


def test_a_lane_that_keeps_failing_is_logged_once_per_interval(scene: Scene) -> None:
    for _ in range(25):
        scene.port.commit_failed(0, RetriableError("open: NodeNotReadyError"))
        scene.monotonic_s += 6
    scene.port.commit_failed(1, RetriableError("open: NodeNotReadyError"))
    assert [(line["partition"], line["repeated"]) for line in scene.lines()] == [(0, 0), (0, 9), (0, 9), (1, 0)]
    series = scene.exposition()
    assert "conversation_opening_failures_total 26.0" in series
    assert 'conversation_commits_total{result="failure"} 0.0' in series


def test_another_failure_is_logged_sooner(scene: Scene) -> None:
    for text in ("open: NodeNotReadyError", "no committed offset", "no committed offset", "no committed offset"):
        scene.port.commit_failed(0, RetriableError(text))
        scene.monotonic_s += 10
    assert [(line["error"], line["repeated"]) for line in scene.lines()] == [
        ("open: NodeNotReadyError", 0),
        ("no committed offset", 0),
    ]


def test_an_outage_of_many_lanes_is_few_lines(scene: Scene) -> None:
    for _ in range(12):
        for partition in range(64):
            scene.port.commit_failed(partition, RetriableError("open: NodeNotReadyError"))
        scene.monotonic_s += 10
    lines = scene.lines()
    assert len(lines) == 20
    assert sum(line.get("others", 0) for line in lines) == 54


def test_failures_hide_no_standstill(scene: Scene) -> None:
    for partition in range(64):
        scene.port.commit_failed(partition, RetriableError("commit: RequestTimedOutError"))
    scene.port.stands_still(0, Standstill("unread", "4 records wait and none is read", 0.0), "see the broker")
    events = [line["event"] for line in scene.lines()]
    assert (events.count("lane.failed"), events.count("lane.stands_still")) == (10, 1)


def test_only_an_open_lane_fails_to_commit(scene: Scene) -> None:
    error = RetriableError("commit: RequestTimedOutError")
    scene.port.restored(0, LaneRestored(0, 0, 0.1))
    scene.port.commit_failed(0, error)
    scene.port.commit_failed(0, error)
    scene.port.restored(0, LaneRestored(0, 0, 0.1))
    scene.port.commit_failed(0, error)
    scene.port.restored(0, LaneRestored(0, 0, 0.1))
    scene.port.lane_closed(0, "revoked")
    scene.port.commit_failed(0, error)
    series = scene.exposition()
    assert 'conversation_commits_total{result="failure"} 2.0' in series
    assert "conversation_opening_failures_total 2.0" in series


def test_the_state_of_an_open_lane_is_read_at_the_scrape(scene: Scene) -> None:
    store = StateStore(Rules())
    scene.port.restored(0, LaneRestored(0, 0, 0.1))
    scene.metrics.watch(lambda: {0: store})
    assert 'conversation_state_conversations{partition="0"} 0.0' in scene.exposition()
    known = expect_applied(step(record(), Rules(), None, store.lookup)).stored
    store.stage(f"{MARK}-1", known)
    store.merge(1)
    series = scene.exposition()
    assert 'conversation_state_conversations{partition="0"} 1.0' in series
    assert 'conversation_communications{media="call",partition="0",state="connected"} 1.0' in series
    assert f'conversation_state_bytes{{partition="0"}} {float(len(known.published))}' in series


def oldest_call(store: StateStore) -> list[str]:
    """The lines that a scrape has of the oldest live call."""
    metrics = Metrics()
    metrics.watch(lambda: {0: store})
    shown = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in shown if line.startswith('conversation_oldest_live_timestamp_seconds{media="call"}')]


def restore(store: StateStore) -> StateStore:
    """Another store with the same states, read from the state topic."""
    restored = StateStore(Rules())
    restored.restore((conversation_id.encode(), state) for conversation_id, state in store.items())
    while restored.settle(100):
        pass
    return restored


def play(records: Iterable[Record]) -> StateStore:
    """The states after these records."""
    store, stream_ms = StateStore(Rules()), None
    for number, played in enumerate(records):
        outcome = step(played, Rules(), stream_ms, store.lookup)
        stream_ms = outcome.stream_ms
        if isinstance(outcome, Applied):
            store.stage(outcome.conversation_id, outcome.stored)
            store.merge(number)
    return store


def call(at_ms: int, **leg: Any) -> Record:
    body = {"id": "c", "participants": [{"id": "p", "calls": [{"id": "l", **leg}]}]}
    return Record("updates", 0, 1, at_ms, b"c", msgspec.json.encode(body))


def test_oldest_live_communication_is_the_same_after_a_restore() -> None:
    store = play(
        [
            call(1_767_261_610_000, state="alerting"),  # the time of the snapshot, which is an upper bound
            call(1_767_261_606_000, state="connected", connectedTime="2026-01-01T10:00:05.000Z"),
        ]
    )
    assert oldest_call(store) == oldest_call(restore(store))
    assert store.live_index.oldest_live() == {"call": "2026-01-01T10:00:05.000Z"}


def test_counts_of_communications_are_the_same_after_a_restore() -> None:
    traffic = Traffic(conversations=30, flat=0.5, disorder=0.5, delay_s_max=60)
    drafts = islice(traffic_records(traffic), 3_000)
    store = play(
        Record("u", 0, number, draft.timestamp_ms, draft.key, draft.value) for number, draft in enumerate(drafts)
    )
    again = restore(store)
    assert store.live_index.oldest_live() == again.live_index.oldest_live()
    assert +store.live_index.states == +again.live_index.states
    for conversation_id, state in store.items():
        store.live_index.replace(conversation_id, summary(state), None)
    assert store.live_index.oldest_live() == {}
    assert not any(store.live_index.states.values())


def test_no_personal_data_reaches_a_line_or_a_series(scene: Scene) -> None:
    store, counted = StateStore(Rules()), CommitStats()
    outcome = step(record(), Rules(), None, store.lookup)
    assert isinstance(outcome, Applied)
    assert MARK in outcome.stored.published.decode()
    counted.add(record(), outcome, None, int(WALL_S * 1_000))
    broken = Record("updates", 0, 2, 1_767_261_600_000, MARK.encode(), f'{{"id": "{MARK}", '.encode())
    counted.add(broken, step(broken, Rules(), None, store.lookup), None, int(WALL_S * 1_000))
    store.stage(outcome.conversation_id, outcome.stored)
    store.merge(1)
    scene.port.restored(0, LaneRestored(0, 0, 0.1))
    scene.metrics.watch(lambda: {0: store})
    scene.monotonic_s += PROGRESS_S
    scene.port.committed(0, counted, 0.1, 1)
    text = "\n".join(scene.exposition())
    assert MARK not in text + scene.stream.getvalue()
    assert [line["consumed"] for line in scene.lines()[1:]] == [2]
    assert 'state="connected"} 1.0' in text
    assert 'conversation_data_anomalies_total{kind="unknown_disconnect_type"}' in text
    scene.port.lane_closed(0, "drained")
    assert MARK not in text + scene.stream.getvalue()


def record() -> Record:
    """A live call, with the mark wherever a record may hold personal data."""
    body = {
        "id": f"{MARK}-1",
        "participants": [
            {
                "id": f"{MARK}-2",
                "name": MARK,
                "address": MARK,
                "userId": MARK,
                "purpose": MARK,
                "attributes": {MARK: MARK},
                "calls": [
                    {
                        "id": f"{MARK}-3",
                        "state": "connected",
                        "connectedTime": "2026-01-01T10:00:00.000Z",
                        "direction": MARK,
                        "provider": MARK,
                    },
                    {"id": f"{MARK}-4", "state": MARK, "disconnectType": MARK},
                ],
            }
        ],
    }
    return Record("updates", 0, 1, 1_767_261_600_000, f"{MARK}-1".encode(), msgspec.json.encode(body))
