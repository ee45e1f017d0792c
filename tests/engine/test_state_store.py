"""The conversations of a lane: committed states, states staged over them, and eviction."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.outcomes import Applied, Outcome
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.engine import state_store
from consumer.engine.state_store import StateStore
from tests.strategies import BASE_MS, histories
from tests.worker.scenes import HOUR_S, call

RULES = Rules()
SHORT = Rules(retention_ended_s=600, retention_idle_s=3_600)


class Scene:
    """A store that applies records through the core, with the stream time of a lane."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.store = StateStore(rules)
        self.stream_ms: int | None = None

    def apply(self, record: Record) -> Outcome:
        outcome = step(record, self.rules, self.stream_ms, self.store.lookup)
        if isinstance(outcome, Applied):
            self.store.stage(outcome.conversation_id, outcome.stored)
        self.stream_ms = outcome.stream_ms
        return outcome

    def evict(self, after_s: float, conversations_max: int = 64) -> int:
        return self.store.evict(BASE_MS + round(after_s * 1_000), conversations_max)


def restore(states: dict[str, bytes], rules: Rules = RULES) -> StateStore:
    store = StateStore(rules)
    store.restore((conversation_id.encode(), state) for conversation_id, state in states.items())
    while store.settle(1):
        pass
    return store


def lookup_published(store: StateStore, conversation_id: str) -> bytes | None:
    known = store.lookup(conversation_id)
    return None if known is None else known.published


def state_of(outcome: Outcome) -> bytes:
    assert isinstance(outcome, Applied)
    return outcome.stored.published


def observe(store: StateStore) -> tuple[object, ...]:
    return (
        dict(store.items()),
        len(store),
        store.committed_bytes,
        +store.live_index.states,
        {media: since for media, since in store.live_index.oldest_live().items() if since},
    )


def test_staged_state_hides_the_committed_one() -> None:
    scene = Scene()
    first = state_of(scene.apply(call(0, "alerting", 1)))
    assert (lookup_published(scene.store, "c1"), len(scene.store), dict(scene.store.items())) == (first, 0, {})
    scene.store.merge(None)
    assert (lookup_published(scene.store, "c1"), dict(scene.store.items())) == (first, {"c1": first})
    second = state_of(scene.apply(call(1, "connected", 2)))
    assert second != first
    assert (lookup_published(scene.store, "c1"), dict(scene.store.items())) == (second, {"c1": first})
    scene.store.drop()
    assert (lookup_published(scene.store, "c1"), list(scene.store.staged())) == (first, [])


def test_only_the_last_state_of_a_conversation_is_staged() -> None:
    scene = Scene()
    scene.apply(call(0, "alerting", 1))
    scene.apply(call(1, "alerting", 1, "c2"))
    last = state_of(scene.apply(call(2, "connected", 2)))
    staged = dict(scene.store.staged())
    assert list(staged) == ["c1", "c2"]
    assert staged["c1"] == last


@pytest.mark.parametrize(("written_to", "log_offset"), [(None, 7), (9, 9)])
def test_merge_moves_the_log_offset_only_with_written_states(written_to: int | None, log_offset: int) -> None:
    store = StateStore(RULES)
    store.log_offset = 7
    store.merge(written_to)
    assert store.log_offset == log_offset


def test_dropped_states_are_not_counted() -> None:
    scene = Scene()
    scene.apply(call(0, "connected", 1))
    scene.store.drop()
    assert observe(scene.store) == observe(StateStore(RULES))


def test_committed_bytes_is_the_size_of_the_committed_states() -> None:
    scene = Scene(SHORT)
    for offset, state in enumerate(("alerting", "connected", "disconnected")):
        scene.apply(call(offset, state, offset))
        scene.apply(call(offset, state, offset, "c2"))
        scene.store.merge(None)
        assert scene.store.committed_bytes == sum(len(state) for _, state in scene.store.items()) > 0
    assert scene.evict(SHORT.retention_ended_s + 120, conversations_max=1) == 1
    scene.store.merge(None)
    assert scene.store.committed_bytes == sum(len(state) for _, state in scene.store.items()) > 0
    assert scene.evict(SHORT.retention_ended_s + 120) == 1
    scene.store.merge(None)
    assert (scene.store.committed_bytes, len(scene.store)) == (0, 0)


def test_restore_keeps_the_last_state_of_every_key() -> None:
    scene = Scene()
    outcomes = [scene.apply(call(offset, state, offset)) for offset, state in enumerate(("alerting", "connected"))]
    states = [state_of(outcome) for outcome in outcomes]
    other = state_of(scene.apply(call(2, "alerting", 2, "c2")))
    store = StateStore(RULES)
    store.restore([(b"c1", states[0]), (b"c2", other), (b"c1", states[1])])
    store.restore([(b"c2", None), (b"c3", None)])
    assert store.lookup("c1") is None
    assert store.settle(2) is True
    assert store.settle(2) is False
    assert dict(store.items()) == {"c1": states[1]}
    assert store.committed_bytes == len(states[1])
    assert dict(store.live_index.states) == {("call", "connected"): 1}


def test_restore_over_a_kept_store_replaces_and_removes_states() -> None:
    scene = Scene()
    scene.apply(call(0, "alerting", 1))
    scene.apply(call(1, "connected", 2, "c2"))
    scene.store.merge(2)
    newer = state_of(scene.apply(call(2, "disconnected", 3)))
    scene.store.drop()
    scene.store.restore([(b"c1", newer), (b"c2", None)])
    assert scene.store.settle(10) is False
    assert dict(scene.store.items()) == {"c1": newer}
    assert (lookup_published(scene.store, "c1"), lookup_published(scene.store, "c2")) == (newer, None)
    assert scene.store.committed_bytes == len(newer)
    assert +scene.store.live_index.states == {("call", "disconnected"): 1}
    assert scene.store.live_index.oldest_live() == {}


@given(histories(), st.lists(st.sampled_from(["merge", "drop", "evict"]), max_size=10))
def test_store_equals_a_restore_of_its_states(history: list[Record], endings: list[str]) -> None:
    scene = Scene()
    for index, record in enumerate(history):
        scene.apply(record)
        match endings[index] if index < len(endings) else "merge":
            case "drop":
                scene.store.drop()
            case "evict":
                scene.evict(RULES.retention_ended_s + 3 * HOUR_S, conversations_max=1)
                scene.store.merge(None)
            case _:
                scene.store.merge(None)
    assert observe(scene.store)[:4] == observe(restore(dict(scene.store.items())))[:4]


@pytest.mark.parametrize(
    ("state", "retention_s"), [("disconnected", SHORT.retention_ended_s), ("alerting", SHORT.retention_idle_s)]
)
@pytest.mark.parametrize("after", ["merged", "restored", "dropped", "restored over it"])
def test_conversation_is_evicted_the_minute_after_retention(state: str, retention_s: int, after: str) -> None:
    scene = Scene(SHORT)
    outcome = scene.apply(call(0, state, 30))
    match after:
        case "merged":
            scene.store.merge(None)
        case "restored":
            scene.store.merge(None)
            scene.store = restore(dict(scene.store.items()), SHORT)
        case "restored over it":
            scene.store.drop()
            scene.apply(call(0, "alerting", 20))
            scene.store.merge(None)
            scene.store.restore([(b"c1", state_of(outcome))])
            assert scene.store.settle(10) is False
        case "dropped":
            scene.store.merge(None)
            for _ in range(2):
                assert scene.evict(30 + retention_s + 30) == 1
                assert scene.evict(30 + retention_s + 30) == 0
                scene.store.drop()
            assert scene.store.lookup("c1") is not None
    assert scene.evict(30 + retention_s) == 0
    assert scene.evict(30 + retention_s + 29.999) == 0
    assert scene.evict(30 + retention_s + 30) == 1
    assert (lookup_published(scene.store, "c1"), dict(scene.store.staged())) == (None, {"c1": None})
    scene.store.merge(None)
    assert (len(scene.store), scene.store.committed_bytes, +scene.store.live_index.states) == (0, 0, {})


@pytest.mark.parametrize(
    ("updates", "kept_s"),
    [
        ([("connected", 0), ("disconnected", 300)], 300 + SHORT.retention_ended_s),
        ([("alerting", 0), ("connected", 300)], 300 + SHORT.retention_idle_s),
        ([("disconnected", 0), ("disconnected", 300)], 300 + SHORT.retention_ended_s),
    ],
)
@pytest.mark.parametrize("commits", [1, 2])
def test_updates_prolong_and_an_end_shortens_the_retention(
    updates: list[tuple[str, int]], kept_s: int, commits: int
) -> None:
    scene = Scene(SHORT)
    for offset, (state, seconds) in enumerate(updates):
        scene.apply(call(offset, state, seconds))
        if offset + commits > 1:
            scene.store.merge(None)
    for seconds in range(0, kept_s + 60, 60):
        assert scene.evict(seconds) == 0
    assert scene.evict(kept_s + 60) == 1


@pytest.mark.parametrize(("after_s", "evicted"), [(300 + SHORT.retention_ended_s + 59.999, 0), (900 + 60, 1)])
def test_update_prolongs_the_retention_before_a_late_eviction(after_s: float, evicted: int) -> None:
    """The first eviction may run long after the update."""
    scene = Scene(SHORT)
    scene.apply(call(0, "disconnected", 0))
    scene.store.merge(None)
    scene.apply(call(1, "disconnected", 300))
    scene.store.merge(None)
    assert scene.evict(after_s) == evicted


def test_late_end_brings_the_eviction_forward() -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "connected", 0))
    scene.store.merge(None)
    assert scene.evict(700) == 0
    scene.apply(call(1, "disconnected", 840))
    scene.store.merge(None)
    assert scene.evict(840 + SHORT.retention_ended_s) == 0
    assert scene.evict(900 + SHORT.retention_ended_s) == 1


def test_stale_entry_of_an_evicted_conversation_is_skipped() -> None:
    """The conversation was live once, so it has an entry under its idle retention as well."""
    scene = Scene(SHORT)
    scene.apply(call(0, "connected", 0))
    scene.store.merge(None)
    scene.apply(call(1, "disconnected", 60))
    scene.store.merge(None)
    assert scene.evict(120 + SHORT.retention_ended_s) == 1
    assert scene.evict(120 + SHORT.retention_idle_s) == 0
    scene.store.merge(None)
    assert scene.evict(240 + SHORT.retention_idle_s) == 0
    assert list(scene.store.staged()) == []


def test_conversation_has_one_entry_per_retention() -> None:
    """Further updates add none."""
    scene = Scene(SHORT)
    for minute in range(50):
        scene.apply(call(minute, "connected" if minute < 45 else "disconnected", minute * 60))
        scene.store.merge(None)
        assert scene.evict(minute * 60) == 0
    assert sum(len(waiting) for due in scene.store._due.values() for waiting in due._minutes.values()) == 2
    assert all(len(due._order) == len(due._minutes) for due in scene.store._due.values())


def test_staged_and_evicted_between_commits_changes_no_count() -> None:
    """The entry is from an earlier, evicted state; a state that was never committed has none."""
    scene = Scene(SHORT)
    scene.apply(call(0, "connected", 0))
    scene.apply(call(1, "connected", 0, "c2"))
    scene.store.merge(None)
    scene.apply(call(2, "disconnected", 60))
    scene.store.merge(None)
    assert scene.evict(120 + SHORT.retention_ended_s) == 1
    assert scene.store.count_staged() == 1
    scene.store.merge(None)
    scene.apply(call(3, "connected", 3_000, "c2"))
    scene.apply(call(4, "disconnected", 3_000))
    assert scene.store.count_staged() == 2
    assert scene.evict(60 + SHORT.retention_idle_s) == 0
    assert scene.evict(120 + SHORT.retention_idle_s) == 1
    assert dict(scene.store.staged())["c1"] is None
    assert scene.store.count_staged() == 1
    scene.store.merge(None)
    assert len(scene.store) == 1


def test_decoded_states_are_bounded_and_equal_the_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    size = len(state_of(scene.apply(call(0, "alerting", 1, "c0"))))
    bytes_max = 3 * size + size // 2
    monkeypatch.setattr(state_store, "_DECODED_BYTES_MAX", bytes_max)
    for offset in range(40):
        scene.apply(call(offset, ("alerting", "connected")[offset // 20], offset, f"c{offset % 8}"))
        scene.store.merge(None)
        held = scene.store._decoded
        assert scene.store._decoded_bytes == sum(len(known.published) for known in held.values()) <= bytes_max
        assert f"c{offset % 8}" in held
    for conversation_id, state in scene.store.items():
        assert lookup_published(scene.store, conversation_id) == state
        assert len(scene.store._decoded) <= 3


def test_reopened_conversation_has_the_idle_retention() -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "disconnected", 0))
    scene.store.merge(None)
    scene.apply(call(1, "connected", 60, communication_id="m2"))
    scene.store.merge(None)
    assert scene.evict(60 + SHORT.retention_idle_s) == 0
    assert scene.evict(120 + SHORT.retention_idle_s) == 1


def test_evictions_are_bounded_and_resume_where_they_stopped() -> None:
    scene = Scene(SHORT)
    for offset in range(5):
        scene.apply(call(offset, "disconnected", offset * 60, f"c{offset}"))
    scene.store.merge(None)
    late_s = SHORT.retention_ended_s + HOUR_S
    assert [scene.evict(late_s, conversations_max=2) for _ in range(4)] == [2, 2, 1, 0]
    scene.store.merge(None)
    assert len(scene.store) == 0


def test_evicted_conversation_can_start_again_in_the_same_commit() -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "disconnected", 0))
    scene.store.merge(None)
    assert scene.evict(SHORT.retention_ended_s + 60) == 1
    outcome = scene.apply(call(1, "connected", SHORT.retention_ended_s + 60, communication_id="m2"))
    state = json.loads(state_of(outcome))
    assert [communication["communicationId"] for communication in state["participants"][0]["communications"]] == ["m2"]
    scene.store.merge(None)
    assert dict(scene.store.items()) == {"c1": state_of(outcome)}
    assert +scene.store.live_index.states == {("call", "connected"): 1}
    assert scene.evict(SHORT.retention_ended_s + 60 + SHORT.retention_idle_s) == 0
    assert scene.evict(SHORT.retention_ended_s + 120 + SHORT.retention_idle_s) == 1


@pytest.mark.parametrize(
    ("behind_s", "disposition", "reason"),
    [(SHORT.retention_ended_s, "applied", ""), (SHORT.retention_ended_s + 0.001, "dead_lettered", "late")],
)
def test_late_first_record_is_dead_lettered_and_stores_nothing(behind_s: float, disposition: str, reason: str) -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "connected", 3_000))
    outcome = scene.apply(call(1, "connected", 3_000 - behind_s, "c2"))
    assert (outcome.disposition, outcome.reason) == (disposition, reason)
    assert (scene.store.lookup("c2") is not None) == (disposition == "applied")


def test_update_of_a_known_conversation_is_never_late() -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "connected", 3_000))
    assert scene.apply(call(1, "alerting", 0)).disposition == "applied"


def test_old_update_after_the_eviction_is_late() -> None:
    scene = Scene(SHORT)
    scene.apply(call(0, "disconnected", 0))
    scene.store.merge(None)
    scene.apply(call(1, "connected", SHORT.retention_ended_s + 60, "c2"))
    assert scene.stream_ms is not None
    assert scene.store.evict(scene.stream_ms, 64) == 1
    assert scene.apply(call(2, "disconnected", 0)).reason == "late"
