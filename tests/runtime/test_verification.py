"""What a verification calls equal, what it calls different, and what it leaves apart by design."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome
from consumer.runtime.dead_letters import dead_letter
from consumer.runtime.verification import APART, Shown, Verification
from tests import model
from tests.core.play import Played, play
from tests.runtime.scenes import HOUR_S, call, outcome, rubbish
from tests.strategies import TOPIC, at, histories

RULES = Rules()
LIFE = [
    call(0, "alerting", 1),
    call(1, "connected", 5, "c2"),
    call(2, "connected", 5),
    call(3, "disconnected", 9, disconnectType="peer"),
    rubbish(4),
]
PUBLISHED_MS = 4_000_000_000_000
"""When a worker published: long after everything happened."""


class Topics(msgspec.Struct):
    """One partition of the four topics, as they are to be read."""

    input: list[Record]
    states: list[Record]
    transitions: list[Record]
    letters: list[Record] = []
    begin: int = 0
    bound: int | None = None
    complete: bool = True
    stream_ms: int | None = None

    def verified(self, rules: Rules = RULES) -> Verification:
        bound = self.bound if self.bound is not None else max((each.next_offset for each in self.input), default=0)
        found = Verification(rules, TOPIC, self.begin, bound)
        for each in self.letters:
            found.take_letter(each)
        for each in self.input:
            if self.begin <= each.offset < bound:
                found.take_input([each])
        for each in self.states:
            found.take_state(each)
        found.begin_transitions(complete=self.complete)
        for each in self.transitions:
            found.take_transition(each)
        found.compare(self.stream_ms)
        return found


def out(key: str, value: Any, offset: int = 0) -> Record:
    encoded = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Record("out", 0, offset, PUBLISHED_MS, key.encode(), encoded)


def log_of(played: Played) -> list[Record]:
    return [out(each["conversationId"], each) for each in played.log]


def states_of(played: Played) -> list[Record]:
    return [out(key, state) for key, state in played.states.items()]


def published(records: Sequence[Record]) -> Topics:
    """What a worker makes of these records."""
    played = play(records)
    return Topics(list(records), states_of(played), log_of(played))


def counted(found: Verification) -> tuple[int, int, dict[str, int]]:
    return found.comparison.equal, found.comparison.different, dict(found.comparison.apart)


@settings(max_examples=60)
@given(histories())
def test_what_was_published_in_the_order_of_arrival_is_equal(history: list[Record]) -> None:
    topics = published(history)
    found = topics.verified()
    played = play(history)
    assert counted(found) == (len(played.states), 0, {})
    assert found.comparison.records == len(history)
    assert found.comparison.transitions == len(model.net(played.log))


@settings(max_examples=60)
@given(histories())
def test_what_was_published_in_any_other_order_is_equal_too(history: list[Record]) -> None:
    topics = published(history[::-1])
    topics.input = history
    assert counted(topics.verified()) == (len(topics.states), 0, {})


def changed(records: Iterable[Record], key: str, old: bytes, new: bytes) -> list[Record]:
    found = [
        msgspec.structs.replace(each, value=(each.value or b"").replace(old, new)) if each.key == key.encode() else each
        for each in records
    ]
    assert found != list(records)
    return found


def shown(found: Verification, topics: Topics, conversation_id: str) -> list[tuple[str, str, Any, Any]]:
    states = {each.key: each.value for each in topics.states}
    log = [json.loads(each.value or b"") for each in topics.transitions]
    standing = {number: msgspec.convert(each, Shown) for number, each in model.net(log).items()}
    told = found.differences(conversation_id, states.get(conversation_id.encode()), standing)
    return [(what, each.path, each.published, each.recomputed) for what, each in told]


def test_a_state_that_is_not_what_the_input_says_is_shown_where_it_differs() -> None:
    topics = published(LIFE)
    topics.states = changed(topics.states, "c1", b'"disconnectType":"peer"', b'"disconnectType":"client"')
    found = topics.verified()
    assert counted(found) == (1, 1, {})
    assert shown(found, topics, "c1") == [
        ("state", "participants[p1].communications[call/m1].details.disconnectType", "client", "peer")
    ]


def test_a_state_that_is_missing_and_one_that_nothing_says_are_differences() -> None:
    topics = published(LIFE)
    topics.states = [out("c1", None), *topics.states[1:], out("c3", topics.states[0].value)]
    found = topics.verified()
    assert counted(found) == (1, 2, {})
    ((_, _, here, there),) = shown(found, topics, "c3")
    assert (here["live"], there) == (0, None)
    ((_, _, here, there),) = shown(found, topics, "c1")
    assert (here, there["live"]) == (None, 0)


def test_the_source_of_a_state_is_not_compared() -> None:
    topics = published(LIFE)
    topics.states = changed(topics.states, "c1", b'"offset":3', b'"offset":2')
    assert counted(topics.verified()) == (2, 0, {})


def test_transitions_that_are_missing_too_many_or_not_as_they_should_be_are_shown_with_both_sides() -> None:
    topics = published(LIFE)
    first, *others = [each for each in topics.transitions if each.key == b"c1"]
    mine = json.loads(first.value or b"")
    retracted = out("c1", mine | {"op": "retract"})
    strange = out("c1", mine | {"id": "00" * 16})
    unlike = out("c1", json.loads(others[0].value or b"") | {"eventTime": at(6)})
    topics.transitions += [retracted, strange, unlike]
    found = topics.verified()
    assert counted(found) == (1, 1, {})
    assert found.comparison.different_transitions == 3
    told = {path: (here, there) for _, path, here, there in shown(found, topics, "c1")}
    assert [here is None or there is None for here, there in told.values()].count(True) == 2
    assert told[mine["id"]][1] == {
        "participantId": "p1",
        "media": "call",
        "communicationId": "m1",
        "from": None,
        "to": "alerting",
        "eventTime": at(1),
        "timeClass": "snapshot",
        "millisecondsInFrom": None,
    }
    here, there = told[json.loads(others[0].value or b"")["id"]]
    assert (here["eventTime"], there["eventTime"]) == (at(6), at(5))


def test_what_was_published_from_records_after_the_bound_is_left_aside() -> None:
    before, after = published(LIFE[:3]), published(LIFE)
    both = Topics(LIFE, before.states + after.states, before.transitions + after.transitions[3:], bound=3)
    assert len(after.transitions) == 4
    assert counted(both.verified()) == (2, 0, {})
    compacted = Topics(LIFE, after.states, after.transitions, bound=3)
    assert counted(compacted.verified()) == (1, 0, {"ahead": 1})
    begun_anew = Topics(LIFE, after.states, after.transitions, bound=0)
    assert counted(begun_anew.verified()) == (0, 0, {"ahead": 2})


def test_offsets_of_another_topic_say_nothing_of_the_bound() -> None:
    topics = published(LIFE)
    topics.states = changed(topics.states, "c1", b'"topic":"%s"' % TOPIC.encode(), b'"topic":"a-former-input"')
    topics.states = changed(topics.states, "c1", b'"offset":3', b'"offset":3000')
    assert counted(topics.verified()) == (2, 0, {})


def hours(first_offset: int, count: int) -> list[Record]:
    """News of another conversation, one an hour, which move stream time."""
    return [call(first_offset + each, "connected", each * HOUR_S, "c3", held=bool(each % 2)) for each in range(count)]


RETENTION_H = RULES.retention_ended_s // HOUR_S


def test_an_eviction_that_comes_a_little_earlier_or_later_is_no_difference() -> None:
    long = [*LIFE[:4], *hours(5, RETENTION_H + 2)]
    kept_longer = published(long)
    assert {each.key for each in kept_longer.states} == {b"c1", b"c2", b"c3"}
    assert counted(kept_longer.verified()) == (2, 0, {"evicted": 1})
    short = published([*LIFE[:4], *hours(5, RETENTION_H)])
    short.states.append(out("c1", None))
    assert counted(short.verified()) == (2, 1, {})
    short.stream_ms = play(long).outcomes[-1].stream_ms
    assert counted(short.verified()) == (2, 0, {"evicted": 1})


def test_a_conversation_that_returned_after_an_eviction_is_left_apart() -> None:
    news = hours(5, RETENTION_H + 2)
    back = call(1_000, "connected", (RETENTION_H + 1) * HOUR_S, "c1", communication_id="m2")
    topics = published([*LIFE[:4], *news, back])
    assert counted(topics.verified()) == (2, 0, {"returned": 1})
    anew = published([back])
    topics.states = [*topics.states[1:], out("c1", None), *anew.states]
    assert counted(topics.verified()) == (2, 0, {"returned": 1})


def letter(record: Record, told: Outcome) -> Record:
    made = dead_letter(record, told, keep_payload=False, payload_bytes_max=1, version="1")
    return Record("dead", 0, 0, PUBLISHED_MS, made.key, made.value, tuple(made.headers))


@pytest.mark.parametrize("reason", ["late", "too_large", "internal_error"])
def test_a_conversation_whose_record_was_refused_for_when_it_came_is_left_apart(reason: str) -> None:
    topics = published([each for each in LIFE if each.offset != 3])
    topics.input = LIFE
    assert counted(topics.verified()) == (1, 1, {})
    topics.letters = [letter(LIFE[3], outcome("dead_lettered", reason))]
    assert counted(topics.verified()) == (1, 0, {"refused": 1})
    topics.letters = [letter(LIFE[3], outcome("dead_lettered", "bad_json"))]
    assert counted(topics.verified()) == (1, 1, {})


def test_where_retention_deleted_the_beginning_of_the_input_only_later_conversations_are_verified() -> None:
    later = call(5, "connected", 20, "c3")
    topics = published([*LIFE, later])
    topics.begin = 3
    found = topics.verified()
    assert counted(found) == (1, 0, {"before_input": 2})
    assert found.first_ms == later.timestamp_ms
    topics.states = changed(topics.states, "c3", b'"connected"', b'"alerting"')
    assert counted(topics.verified()) == (0, 1, {"before_input": 2})


def test_transitions_tell_of_a_conversation_that_was_seen_before_the_beginning_of_the_input() -> None:
    """Its state need not: all that it tells is newer than the first records left."""
    records = [call(0, "alerting", 100), call(1, "connected", 50, "c2"), call(2, "connected", 101)]
    topics = published(records)
    topics.begin = 1
    topics.states = changed(topics.states, "c1", at(100).encode(), at(101).encode())
    assert counted(topics.verified()) == (1, 0, {"before_input": 1})
    topics.transitions = [each for each in topics.transitions if b'"offset": 0' not in (each.value or b"")]
    assert counted(topics.verified()) == (1, 1, {})


def test_transitions_that_retention_deleted_are_no_difference_but_later_ones_are() -> None:
    topics = published([*LIFE, call(5, "connected", 5_000, "c3"), call(6, "disconnected", 5_010, "c3")])
    kept = [each for each in topics.transitions if each.key != b"c1"]
    assert counted(msgspec.structs.replace(topics, transitions=kept).verified()) == (2, 1, {})
    since = msgspec.structs.replace(topics, complete=False)
    since.transitions = [msgspec.structs.replace(each, timestamp_ms=LIFE[0].timestamp_ms) for each in kept]
    assert counted(since.verified()) == (2, 0, {"transitions_deleted": 1})
    since.transitions = since.transitions[:-1]
    assert counted(since.verified()) == (1, 1, {"transitions_deleted": 1})
    since.transitions = []
    assert counted(since.verified()) == (0, 0, {"transitions_deleted": 3})


def test_every_reason_to_leave_a_conversation_apart_has_a_sentence() -> None:
    assert all(meaning and not meaning.endswith(".") for meaning in APART.values())


@pytest.mark.parametrize(
    "value", [b"", b"rubbish", b'{"conversationId":1}', b'{"schema":2,"conversationId":"c","source":{}}']
)
def test_what_is_no_state_is_refused(value: bytes) -> None:
    topics = published(LIFE)
    topics.states.append(out("c9", value))
    with pytest.raises(ValueError):  # noqa: PT011 - of which the errors of msgspec are some
        topics.verified()
