"""What a verification counts as equal, as different, and as excluded by design."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from consumer.core.outcomes import DeadLettered
from consumer.core.reasons import DeadLetterReason
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.dead_letters import DeadLetterFormat, build
from consumer.tools.verification import EXCLUSIONS, ComparedTransition, Comparison, Verification
from tests import model
from tests.core.play import Played, play
from tests.strategies import BASE_MS, FEWER, TOPIC, at, histories
from tests.worker.scenes import HOUR_S, call, rubbish

RULES = Rules()
LIFE = [
    call(0, "alerting", 1),
    call(1, "connected", 5, "c2"),
    call(2, "connected", 5),
    call(3, "disconnected", 9, disconnectType="peer"),
    rubbish(4),
]
PUBLISHED_MS = 4_000_000_000_000
"""When the worker published: long after everything happened."""


class Topics(msgspec.Struct):
    """One partition of the four topics."""

    input: list[Record]
    states: list[Record]
    transitions: list[Record]
    letters: list[Record] = []
    begin: int = 0
    end: int | None = None
    """The committed offset of the input; None for its end."""
    is_complete: bool = True
    """Whether the transitions topic still holds its first record."""
    stream_ms: int | None = None

    def verify(self, rules: Rules = RULES) -> Verification:
        end = self.end if self.end is not None else max((record.next_offset for record in self.input), default=0)
        verification = Verification(rules, TOPIC, self.begin, end)
        for record in self.letters:
            verification.add_dead_letter(record)
        for record in self.input:
            if self.begin <= record.offset < end:
                verification.add_input([record])
        for record in self.states:
            verification.add_state(record)
        verification.begin_transitions(is_complete=self.is_complete)
        for record in self.transitions:
            verification.add_transition(record)
        verification.compare(self.stream_ms)
        return verification


def output(key: str, value: Any, offset: int = 0) -> Record:
    encoded = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Record("out", 0, offset, PUBLISHED_MS, key.encode(), encoded)


def log_of(played: Played) -> list[Record]:
    return [output(transition["conversationId"], transition) for transition in played.log]


def states_of(played: Played) -> list[Record]:
    return [output(key, state) for key, state in played.states.items()]


def publish(records: Sequence[Record]) -> Topics:
    """The topics after a worker has consumed these records."""
    played = play(records)
    return Topics(list(records), states_of(played), log_of(played))


def counts(verification: Verification) -> tuple[int, int, dict[str, int]]:
    """How many conversations are equal, different, and excluded by reason."""
    comparison = verification.comparison
    return comparison.equal, comparison.different, dict(comparison.excluded)


def of_key(records: Iterable[Record], *keys: bytes) -> list[Record]:
    return [record for record in records if record.key in keys]


def without_key(records: Iterable[Record], key: bytes) -> list[Record]:
    return [record for record in records if record.key != key]


def alter(records: Iterable[Record], key: str, old: bytes, new: bytes) -> list[Record]:
    """The records with part of the value of one key replaced."""
    altered = [
        replace(record, value=(record.value or b"").replace(old, new)) if record.key == key.encode() else record
        for record in records
    ]
    assert altered != list(records)
    return altered


def with_timestamps(records: Iterable[Record], timestamp_ms: int) -> list[Record]:
    return [replace(record, timestamp_ms=timestamp_ms) for record in records]


def list_differences(
    verification: Verification, topics: Topics, conversation_id: str
) -> list[tuple[str, str, Any, Any]]:
    """Kind, path, published and recomputed value of every difference."""
    states = {record.key: record.value for record in topics.states}
    log = [json.loads(record.value or b"") for record in topics.transitions]
    standing = {key: msgspec.convert(fields, ComparedTransition) for key, fields in model.net(log).items()}
    differences = verification.differences(conversation_id, states.get(conversation_id.encode()), standing)
    return [(kind, difference.path, difference.published, difference.recomputed) for kind, difference in differences]


@FEWER
@given(histories())
def test_states_published_in_order_of_arrival_are_equal(history: list[Record]) -> None:
    verification = publish(history).verify()
    played = play(history)
    assert counts(verification) == (len(played.states), 0, {})
    assert verification.comparison.records == len(history)
    assert verification.comparison.transitions == len(model.net(played.log))


@FEWER
@given(histories())
def test_states_published_in_another_order_are_equal(history: list[Record]) -> None:
    topics = publish(history[::-1])
    topics.input = history
    assert counts(topics.verify()) == (len(topics.states), 0, {})


def test_a_wrong_state_is_listed_where_it_differs() -> None:
    topics = publish(LIFE)
    topics.states = alter(topics.states, "c1", b'"disconnectType":"peer"', b'"disconnectType":"client"')
    verification = topics.verify()
    assert counts(verification) == (1, 1, {})
    assert list_differences(verification, topics, "c1") == [
        ("state", "participants[p1].communications[call/m1].details.disconnectType", "client", "peer")
    ]


def test_a_missing_state_and_an_unexpected_one_are_differences() -> None:
    topics = publish(LIFE)
    topics.states = [output("c1", None), *topics.states[1:], output("c3", topics.states[0].value)]
    verification = topics.verify()
    assert counts(verification) == (1, 2, {})
    ((_, _, published, recomputed),) = list_differences(verification, topics, "c3")
    assert (published["live"], recomputed) == (0, None)
    ((_, _, published, recomputed),) = list_differences(verification, topics, "c1")
    assert (published, recomputed["live"]) == (None, 0)


def test_the_source_of_a_state_is_not_compared() -> None:
    topics = publish(LIFE)
    topics.states = alter(topics.states, "c1", b'"offset":3', b'"offset":2')
    assert counts(topics.verify()) == (2, 0, {})


def test_wrong_transitions_are_listed_with_both_sides() -> None:
    """One is missing, one is unexpected, and one has another event time."""
    topics = publish(LIFE)
    first, second, *_ = (json.loads(record.value or b"") for record in of_key(topics.transitions, b"c1"))
    topics.transitions += [
        output("c1", first | {"op": "retract"}),
        output("c1", first | {"id": "00" * 16}),
        output("c1", second | {"eventTime": at(6)}),
    ]
    verification = topics.verify()
    assert counts(verification) == (1, 1, {})
    assert verification.comparison.different_transitions == 3
    differences = list_differences(verification, topics, "c1")
    assert [path for _, path, _, _ in differences] == sorted(path for _, path, _, _ in differences)
    sides = {path: (published, recomputed) for _, path, published, recomputed in differences}
    assert [published is None or recomputed is None for published, recomputed in sides.values()].count(True) == 2
    assert sides[first["id"]][1] == {
        "participantId": "p1",
        "media": "call",
        "communicationId": "m1",
        "from": None,
        "to": "alerting",
        "eventTime": at(1),
        "timeClass": "snapshot",
        "millisecondsInFrom": None,
    }
    published, recomputed = sides[second["id"]]
    assert (published["eventTime"], recomputed["eventTime"]) == (at(6), at(5))


def test_effects_of_records_behind_the_end_are_not_compared() -> None:
    earlier, later = publish(LIFE[:3]), publish(LIFE)
    assert len(later.transitions) == 4
    both = Topics(LIFE, earlier.states + later.states, earlier.transitions + later.transitions[3:], end=3)
    assert counts(both.verify()) == (2, 0, {})
    compacted = Topics(LIFE, later.states, later.transitions, end=3)
    assert counts(compacted.verify()) == (1, 0, {"ahead": 1})
    restarted = Topics(LIFE, later.states, later.transitions, end=0)
    assert counts(restarted.verify()) == (0, 0, {"ahead": 2})


def test_sources_in_another_topic_are_not_behind_the_end() -> None:
    topics = publish(LIFE)
    topics.states = alter(topics.states, "c1", b'"topic":"%s"' % TOPIC.encode(), b'"topic":"a-former-input"')
    topics.states = alter(topics.states, "c1", b'"offset":3', b'"offset":3000')
    assert counts(topics.verify()) == (2, 0, {})


def hourly(first_offset: int, count: int) -> list[Record]:
    """Records of another conversation, one an hour, which move stream time."""
    return [call(first_offset + hour, "connected", hour * HOUR_S, "c3", held=bool(hour % 2)) for hour in range(count)]


RETENTION_H = RULES.retention_ended_s // HOUR_S


def test_an_eviction_may_come_a_little_earlier_or_later() -> None:
    long = [*LIFE[:4], *hourly(5, RETENTION_H + 2)]
    late_eviction = publish(long)
    assert {record.key for record in late_eviction.states} == {b"c1", b"c2", b"c3"}
    assert counts(late_eviction.verify()) == (2, 0, {"evicted": 1})
    early_eviction = publish([*LIFE[:4], *hourly(5, RETENTION_H)])
    early_eviction.states.append(output("c1", None))
    assert counts(early_eviction.verify()) == (2, 1, {})
    early_eviction.stream_ms = play(long).outcomes[-1].stream_ms
    assert counts(early_eviction.verify()) == (2, 0, {"evicted": 1})


def test_a_conversation_that_returned_is_excluded() -> None:
    hours = hourly(5, RETENTION_H + 2)
    back = call(1_000, "connected", (RETENTION_H + 1) * HOUR_S, "c1", communication_id="m2")
    topics = publish([*LIFE[:4], *hours, back])
    assert counts(topics.verify()) == (2, 0, {"returned": 1})
    topics.states = [*topics.states[1:], output("c1", None), *publish([back]).states]
    assert counts(topics.verify()) == (2, 0, {"returned": 1})


def test_a_tombstone_before_a_state_means_a_return() -> None:
    """The input need not show it. A tombstone of another conversation means nothing."""
    topics = publish(LIFE)
    other = alter(topics.states, "c1", b'"disconnectType":"peer"', b'"disconnectType":"client"')[:1]
    topics.states = [*topics.states, output("c1", None), *other]
    assert counts(topics.verify()) == (1, 0, {"returned": 1})
    topics.states = [output("c9", None), *topics.states[:2], *other]
    assert counts(topics.verify()) == (1, 1, {})


def test_a_wrong_state_is_a_difference_although_it_has_expired() -> None:
    topics = publish(LIFE)
    topics.states = alter(topics.states, "c1", b'"disconnectType":"peer"', b'"disconnectType":"client"')
    topics.stream_ms = BASE_MS + 2 * RULES.retention_ended_s * 1_000
    assert counts(topics.verify()) == (1, 1, {})


def dead_letter(record: Record, outcome: DeadLettered) -> Record:
    letter = build(record, outcome, DeadLetterFormat(keep_payload=False, payload_bytes_max=1, version="1"))
    return Record("dead", 0, 0, PUBLISHED_MS, letter.key, letter.value, tuple(letter.headers))


def publish_without(offset: int) -> Topics:
    """The topics after a worker has refused one record of the life."""
    topics = publish([record for record in LIFE if record.offset != offset])
    topics.input = LIFE
    return topics


@pytest.mark.parametrize("reason", ["late", "too_large", "internal_error"])
def test_a_record_refused_on_arrival_excludes_a_conversation(reason: DeadLetterReason) -> None:
    topics = publish_without(3)
    assert counts(topics.verify()) == (1, 1, {})
    topics.letters = [dead_letter(LIFE[3], DeadLettered(reason, "", None))]
    assert counts(topics.verify()) == (1, 0, {"refused": 1})
    topics.letters = [dead_letter(LIFE[3], DeadLettered("bad_json", "", None))]
    assert counts(topics.verify()) == (1, 1, {})


def test_a_dead_letter_from_elsewhere_excludes_nothing() -> None:
    topics = publish_without(3)
    letter = dead_letter(LIFE[3], DeadLettered("late", "", None))
    for name, wrong in (("cc-source-offset", b"x"), ("cc-source-topic", b"another")):
        headers = tuple((header, wrong if header == name else text) for header, text in letter.headers)
        topics.letters = [replace(letter, headers=headers)]
        assert counts(topics.verify()) == (1, 1, {})


def test_only_conversations_first_seen_in_the_input_are_verified() -> None:
    """Retention has deleted the records before offset 3."""
    later = call(5, "connected", 20, "c3")
    topics = publish([*LIFE, later])
    topics.begin = 3
    verification = topics.verify()
    assert counts(verification) == (1, 0, {"before_input": 2})
    assert verification.first_ms == later.timestamp_ms
    topics.states = alter(topics.states, "c3", b'"connected"', b'"alerting"')
    assert counts(topics.verify()) == (0, 1, {"before_input": 2})


def test_the_source_of_a_transition_may_precede_the_input() -> None:
    """Its conversation was seen before, though every time in the state is newer than the first records left."""
    topics = publish([call(0, "alerting", 100), call(1, "connected", 50, "c2"), call(2, "connected", 101)])
    topics.begin = 1
    topics.states = alter(topics.states, "c1", at(100).encode(), at(101).encode())
    assert counts(topics.verify()) == (1, 0, {"before_input": 1})
    topics.transitions = [record for record in topics.transitions if b'"offset": 0' not in (record.value or b"")]
    assert counts(topics.verify()) == (1, 1, {})


def test_first_ms_is_the_newest_timestamp_of_the_first_records() -> None:
    first = [call(offset, "connected", seconds, "c2") for offset, seconds in enumerate((5, 9, 7))]
    later = [call(offset, "connected", offset, "c2") for offset in range(10, 107)]
    topics = publish([*first, *later, call(200, "connected", 1_000, "c2")])
    assert topics.verify().first_ms == later[-1].timestamp_ms
    assert publish(first).verify().first_ms == first[1].timestamp_ms


def test_a_state_may_show_that_it_precedes_the_input() -> None:
    """By a time that it holds, or by its last record; the transitions that would show it as well are deleted."""
    by_time = publish([call(0, "connected", 1), call(1, "connected", 99, "c3"), call(2, "disconnected", 100)])
    by_record = publish([call(0, "connected", 200), call(1, "connected", 99, "c3")])
    for topics in (by_time, by_record):
        topics.transitions = of_key(topics.transitions, b"c3")
        assert counts(topics.verify()) == (1, 1, {})
        topics.begin = 1
        assert counts(topics.verify()) == (1, 0, {"before_input": 1})
    by_record.states = alter(by_record.states, "c3", b'"connected"', b'"alerting"')
    assert counts(by_record.verify()) == (0, 1, {"before_input": 1})


def test_a_recomputed_state_may_show_that_it_precedes_the_input() -> None:
    """It holds a time before the first records left: it may have been evicted before they were written."""
    topics = publish([call(0, "alerting", 50), call(1, "connected", 99, "c3"), call(2, "disconnected", 9)])
    topics.states = of_key(topics.states, b"c3")
    topics.transitions = of_key(topics.transitions, b"c3")
    assert counts(topics.verify()) == (1, 1, {})
    topics.begin = 1
    assert counts(topics.verify()) == (1, 0, {"before_input": 1})


def test_covers_only_effects_of_records_before_the_end() -> None:
    topics = publish(LIFE)
    topics.end = 3
    verification = topics.verify()
    assert [verification.covers(record) for record in topics.states] == [False, True]
    assert [verification.covers(record) for record in topics.transitions] == [True, True, True, False]
    assert verification.covers(output("c1", None))


def test_a_conversation_only_in_later_records_is_counted_once() -> None:
    topics = publish([call(0, "connected", 1), call(1, "connected", 2, "c2"), call(2, "alerting", 3, "c2")])
    topics.end = 1
    topics.states += topics.states[-1:]
    verification = topics.verify()
    assert counts(verification) == (1, 0, {"ahead": 1})
    assert verification.comparison.conversations == 2


def test_an_unexpected_conversation_is_counted_once() -> None:
    """Later records contain it as well."""
    topics = publish(LIFE)
    (state,) = of_key(topics.states, b"c1")
    later = alter([output("c9", state.value)], "c9", b'"offset":3', b'"offset":9')
    topics.states += [output("c9", state.value), *later]
    verification = topics.verify()
    assert (counts(verification), verification.comparison.conversations) == ((2, 1, {}), 3)


def test_comparisons_of_partitions_add_up() -> None:
    comparison = Comparison(1, 2, 3, 4, Counter(ahead=1, evicted=2), 5, 6)
    comparison.add(Comparison(10, 20, 30, 40, Counter(ahead=10), 50, 60))
    assert comparison == Comparison(11, 22, 33, 44, Counter(ahead=11, evicted=2), 55, 66)


def test_transitions_that_retention_deleted_are_excluded() -> None:
    """Later ones that are missing are differences, and so is an unexpected one."""
    topics = publish([*LIFE, call(5, "connected", 5_000, "c3"), call(6, "disconnected", 5_010, "c3")])
    left = without_key(topics.transitions, b"c1")
    assert counts(replace(topics, transitions=left).verify()) == (2, 1, {})
    truncated = replace(topics, is_complete=False, transitions=with_timestamps(left, LIFE[0].timestamp_ms))
    assert counts(truncated.verify()) == (2, 0, {"transitions_deleted": 1})
    unexpected = output("c1", json.loads(topics.transitions[0].value or b"") | {"id": "00" * 16})
    assert counts(replace(truncated, transitions=[*truncated.transitions, unexpected]).verify()) == (2, 1, {})
    truncated.transitions = truncated.transitions[:-1]
    assert counts(truncated.verify()) == (1, 1, {"transitions_deleted": 1})
    truncated.transitions = []
    assert counts(truncated.verify()) == (0, 0, {"transitions_deleted": 3})


@pytest.mark.parametrize(("first_s", "expected"), [(1.0, (1, 0, {"transitions_deleted": 1})), (0.999, (1, 1, {}))])
def test_deleted_transitions_may_be_newer_by_the_allowed_skew(
    first_s: float, expected: tuple[int, int, dict[str, int]]
) -> None:
    """Newer than the first one that is left: an event time may be so far ahead of the record."""
    topics = publish([call(0, "connected", 1 + RULES.future_skew_max_s), call(1, "connected", 900, "c2")])
    topics.transitions = with_timestamps(of_key(topics.transitions, b"c2"), BASE_MS + round(first_s * 1_000))
    topics.is_complete = False
    assert counts(topics.verify()) == expected


def test_a_missing_transition_beside_a_deleted_one_is_found() -> None:
    topics = publish([call(0, "alerting", 1), call(1, "connected", 2, "c2"), call(2, "connected", 10_000)])
    topics.is_complete = False
    topics.transitions = with_timestamps(of_key(topics.transitions, b"c2"), BASE_MS + 2_000)
    verification = topics.verify()
    assert counts(verification) == (1, 1, {})
    assert verification.comparison.different_transitions == 2


def test_states_are_differences_if_the_input_has_no_stream_time() -> None:
    topics = publish(LIFE)
    topics.input = LIFE[-1:]
    topics.end = 5
    assert counts(topics.verify()) == (0, 2, {})


def test_every_exclusion_has_a_meaning() -> None:
    assert all(meaning and not meaning.endswith(".") for meaning in EXCLUSIONS.values())


@pytest.mark.parametrize(
    "value", [b"", b"rubbish", b'{"conversationId":1}', b'{"schema":2,"conversationId":"c","source":{}}']
)
def test_a_value_that_is_not_a_state_is_refused(value: bytes) -> None:
    topics = publish(LIFE)
    topics.states.append(output("c9", value))
    with pytest.raises(ValueError):  # noqa: PT011 - of which the errors of msgspec are some
        topics.verify()
