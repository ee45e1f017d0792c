"""The conversations of a lane: what is committed, what is staged over it, and when they go."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step
from consumer.runtime.state_store import StateStore
from tests.runtime.scenes import HOUR_S, call
from tests.strategies import BASE_MS, histories

RULES = Rules()
SHORT = Rules(retention_ended_s=600, retention_idle_s=3_600)


class Shop:
    """A store that is fed through the core, with the stream time that a lane would carry along."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.store = StateStore(rules)
        self.stream_ms: int | None = None

    def take(self, record: Record) -> Outcome:
        outcome = step(record, self.rules, self.stream_ms, self.store.lookup)
        if outcome.known is not None:
            self.store.stage(outcome.conversation_id, outcome.known)
        self.stream_ms = outcome.stream_ms
        return outcome

    def evict(self, after_s: float, most: int = 64) -> int:
        return self.store.evict(BASE_MS + round(after_s * 1_000), most)


def restored(states: dict[str, bytes], rules: Rules = RULES) -> StateStore:
    store = StateStore(rules)
    store.restore((conversation_id.encode(), state) for conversation_id, state in states.items())
    while store.settle(1):
        pass
    return store


def published(store: StateStore, conversation_id: str) -> bytes | None:
    known = store.lookup(conversation_id)
    return None if known is None else known.published


def state_of(outcome: Outcome) -> bytes:
    assert outcome.known is not None
    return outcome.known.published


def observed(store: StateStore) -> tuple[object, ...]:
    return (
        dict(store.items()),
        len(store),
        store.committed_bytes,
        +store.census.states,
        {media: since for media, since in store.census.oldest_live().items() if since},
    )


def test_what_is_staged_lies_over_what_is_committed() -> None:
    shop = Shop()
    first = state_of(shop.take(call(0, "alerting", 1)))
    assert (published(shop.store, "c1"), len(shop.store), dict(shop.store.items())) == (first, 0, {})
    shop.store.merge(None)
    assert (published(shop.store, "c1"), dict(shop.store.items())) == (first, {"c1": first})
    second = state_of(shop.take(call(1, "connected", 2)))
    assert second != first
    assert (published(shop.store, "c1"), dict(shop.store.items())) == (second, {"c1": first})
    shop.store.drop()
    assert (published(shop.store, "c1"), list(shop.store.staged())) == (first, [])


def test_only_the_last_state_of_a_conversation_is_staged() -> None:
    shop = Shop()
    shop.take(call(0, "alerting", 1))
    shop.take(call(1, "alerting", 1, "c2"))
    last = state_of(shop.take(call(2, "connected", 2)))
    staged = dict(shop.store.staged())
    assert list(staged) == ["c1", "c2"]
    assert staged["c1"] == last


@pytest.mark.parametrize(("written_to", "log_offset"), [(None, 7), (9, 9)])
def test_a_merge_moves_the_log_offset_only_if_a_state_was_written(written_to: int | None, log_offset: int) -> None:
    store = StateStore(RULES)
    store.log_offset = 7
    store.merge(written_to)
    assert store.log_offset == log_offset


def test_what_is_dropped_was_never_counted() -> None:
    shop = Shop()
    shop.take(call(0, "connected", 1))
    shop.store.drop()
    assert observed(shop.store) == observed(StateStore(RULES))


def test_bytes_are_those_of_the_committed_states() -> None:
    shop = Shop(SHORT)
    for offset, state in enumerate(("alerting", "connected", "disconnected")):
        shop.take(call(offset, state, offset))
        shop.take(call(offset, state, offset, "c2"))
        shop.store.merge(None)
        assert shop.store.committed_bytes == sum(len(state) for _, state in shop.store.items()) > 0
    assert shop.evict(SHORT.retention_ended_s + 120, most=1) == 1
    shop.store.merge(None)
    assert shop.store.committed_bytes == sum(len(state) for _, state in shop.store.items()) > 0
    assert shop.evict(SHORT.retention_ended_s + 120) == 1
    shop.store.merge(None)
    assert (shop.store.committed_bytes, len(shop.store)) == (0, 0)


def test_a_restore_keeps_the_last_of_each_key() -> None:
    shop = Shop()
    taken = [shop.take(call(offset, state, offset)) for offset, state in enumerate(("alerting", "connected"))]
    states = [state_of(each) for each in taken]
    other = state_of(shop.take(call(2, "alerting", 2, "c2")))
    store = StateStore(RULES)
    store.restore([(b"c1", states[0]), (b"c2", other), (b"c1", states[1])])
    store.restore([(b"c2", None), (b"c3", None)])
    assert store.lookup("c1") is None
    assert store.settle(2) is True
    assert store.settle(2) is False
    assert dict(store.items()) == {"c1": states[1]}
    assert store.committed_bytes == len(states[1])
    assert dict(store.census.states) == {("call", "connected"): 1}


def test_a_restore_on_top_of_a_kept_store_replaces_and_removes() -> None:
    shop = Shop()
    shop.take(call(0, "alerting", 1))
    shop.take(call(1, "connected", 2, "c2"))
    shop.store.merge(2)
    newer = state_of(shop.take(call(2, "disconnected", 3)))
    shop.store.drop()
    shop.store.restore([(b"c1", newer), (b"c2", None)])
    assert shop.store.settle(10) is False
    assert dict(shop.store.items()) == {"c1": newer}
    assert shop.store.committed_bytes == len(newer)
    assert +shop.store.census.states == {("call", "disconnected"): 1}
    assert shop.store.census.oldest_live() == {}


@given(histories(), st.lists(st.sampled_from(["merge", "drop", "evict"]), max_size=10))
def test_a_store_is_what_a_restore_of_its_states_would_be(history: list[Record], endings: list[str]) -> None:
    shop = Shop()
    for index, record in enumerate(history):
        shop.take(record)
        match endings[index] if index < len(endings) else "merge":
            case "drop":
                shop.store.drop()
            case "evict":
                shop.evict(RULES.retention_ended_s + 3 * HOUR_S, most=1)
                shop.store.merge(None)
            case _:
                shop.store.merge(None)
    assert observed(shop.store)[:4] == observed(restored(dict(shop.store.items())))[:4]


@pytest.mark.parametrize(
    ("state", "retention_s"), [("disconnected", SHORT.retention_ended_s), ("alerting", SHORT.retention_idle_s)]
)
@pytest.mark.parametrize("after", ["merged", "restored", "dropped", "restored over it"])
def test_a_conversation_goes_in_the_minute_after_its_retention(state: str, retention_s: int, after: str) -> None:
    shop = Shop(SHORT)
    taken = shop.take(call(0, state, 30))
    match after:
        case "merged":
            shop.store.merge(None)
        case "restored":
            shop.store.merge(None)
            shop.store = restored(dict(shop.store.items()), SHORT)
        case "restored over it":
            shop.store.drop()
            shop.take(call(0, "alerting", 20))
            shop.store.merge(None)
            shop.store.restore([(b"c1", state_of(taken))])
            assert shop.store.settle(10) is False
        case "dropped":
            shop.store.merge(None)
            assert shop.evict(30 + retention_s + 30) == 1
            shop.store.drop()
            assert shop.store.lookup("c1") is not None
    assert shop.evict(30 + retention_s) == 0
    assert shop.evict(30 + retention_s + 29.999) == 0
    assert shop.evict(30 + retention_s + 30) == 1
    assert (published(shop.store, "c1"), dict(shop.store.staged())) == (None, {"c1": None})
    shop.store.merge(None)
    assert (len(shop.store), shop.store.committed_bytes, +shop.store.census.states) == (0, 0, {})


@pytest.mark.parametrize(
    ("shown", "kept_s"),
    [
        ([("connected", 0), ("disconnected", 300)], 300 + SHORT.retention_ended_s),
        ([("alerting", 0), ("connected", 300)], 300 + SHORT.retention_idle_s),
        ([("disconnected", 0), ("disconnected", 300)], 300 + SHORT.retention_ended_s),
    ],
)
@pytest.mark.parametrize("commits", [1, 2])
def test_news_prolong_and_an_end_shortens_what_is_kept(shown: list[tuple[str, int]], kept_s: int, commits: int) -> None:
    shop = Shop(SHORT)
    for offset, (state, seconds) in enumerate(shown):
        shop.take(call(offset, state, seconds))
        if offset + commits > 1:
            shop.store.merge(None)
    for seconds in range(0, kept_s + 60, 60):
        assert shop.evict(seconds) == 0
    assert shop.evict(kept_s + 60) == 1


def test_an_end_after_a_long_life_brings_the_eviction_forward() -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "connected", 0))
    shop.store.merge(None)
    assert shop.evict(700) == 0
    shop.take(call(1, "disconnected", 840))
    shop.store.merge(None)
    assert shop.evict(840 + SHORT.retention_ended_s) == 0
    assert shop.evict(900 + SHORT.retention_ended_s) == 1


def test_a_thread_that_is_reopened_is_kept_as_a_live_one() -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "disconnected", 0))
    shop.store.merge(None)
    shop.take(call(1, "connected", 60, communication_id="m2"))
    shop.store.merge(None)
    assert shop.evict(60 + SHORT.retention_idle_s) == 0
    assert shop.evict(120 + SHORT.retention_idle_s) == 1


def test_evictions_are_bounded_and_go_on_where_they_stopped() -> None:
    shop = Shop(SHORT)
    for offset in range(5):
        shop.take(call(offset, "disconnected", offset * 60, f"c{offset}"))
    shop.store.merge(None)
    late_s = SHORT.retention_ended_s + HOUR_S
    assert [shop.evict(late_s, most=2) for _ in range(4)] == [2, 2, 1, 0]
    shop.store.merge(None)
    assert len(shop.store) == 0


def test_a_conversation_that_was_evicted_begins_anew_in_the_same_commit() -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "disconnected", 0))
    shop.store.merge(None)
    assert shop.evict(SHORT.retention_ended_s + 60) == 1
    again = shop.take(call(1, "connected", SHORT.retention_ended_s + 60, communication_id="m2"))
    state = json.loads(state_of(again))
    assert [each["communicationId"] for each in state["participants"][0]["communications"]] == ["m2"]
    shop.store.merge(None)
    assert dict(shop.store.items()) == {"c1": state_of(again)}
    assert +shop.store.census.states == {("call", "connected"): 1}
    assert shop.evict(SHORT.retention_ended_s + 60 + SHORT.retention_idle_s) == 0
    assert shop.evict(SHORT.retention_ended_s + 120 + SHORT.retention_idle_s) == 1


@pytest.mark.parametrize(
    ("behind_s", "disposition", "reason"),
    [(SHORT.retention_ended_s, "applied", ""), (SHORT.retention_ended_s + 0.001, "dead_lettered", "late")],
)
def test_a_late_first_sight_is_dead_lettered_and_no_ghost(behind_s: float, disposition: str, reason: str) -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "connected", 3_000))
    found = shop.take(call(1, "connected", 3_000 - behind_s, "c2"))
    assert (found.disposition, found.reason) == (disposition, reason)
    assert (shop.store.lookup("c2") is not None) == (disposition == "applied")


def test_news_of_a_known_conversation_are_never_late() -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "connected", 3_000))
    assert shop.take(call(1, "alerting", 0)).disposition == "applied"


def test_after_its_eviction_an_old_update_is_late() -> None:
    shop = Shop(SHORT)
    shop.take(call(0, "disconnected", 0))
    shop.store.merge(None)
    shop.take(call(1, "connected", SHORT.retention_ended_s + 60, "c2"))
    assert shop.stream_ms is not None
    assert shop.store.evict(shop.stream_ms, 64) == 1
    assert shop.take(call(2, "disconnected", 0)).reason == "late"
