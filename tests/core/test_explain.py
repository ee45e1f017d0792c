"""What is told of a record's doings: all of it, and nothing else."""

from collections import defaultdict
from typing import Any

from hypothesis import given, settings

from consumer.core.arrival import source_of, without_source
from consumer.core.explain import Effect, Explanation, explained
from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from schemas.state import Observation
from tests.core.play import play
from tests.runtime.scenes import call, heartbeat, rubbish
from tests.strategies import at, histories, noise_records

RULES = Rules()
Place = tuple[Any, ...]


def told_of(records: list[Record]) -> list[tuple[Explanation, Known | None]]:
    """Each record's explanation, with what is known of its conversation afterwards."""
    states: dict[str, Known] = {}
    stream_ms, found = None, []
    for record in records:
        asked: list[Known | None] = []

        def lookup(key: str, asked: list[Known | None] = asked) -> Known | None:
            asked.append(states.get(key))
            return asked[0]

        outcome = step(record, RULES, stream_ms, lookup)
        stream_ms = outcome.stream_ms
        explanation = explained(record, RULES, asked[0] if asked else None, outcome)
        if outcome.known is not None:
            states[outcome.conversation_id] = outcome.known
        found.append((explanation, states.get(outcome.conversation_id)))
    return found


def brief(explanation: Explanation) -> list[tuple[Any, ...]]:
    return [
        (each.kind, each.what, *(one["time"] if isinstance(one, dict) else one for one in _sides(each)))
        for each in explanation.effects
    ]


def _sides(each: Effect) -> tuple[Any, Any, Any]:
    return each.before, each.after, each.shown


def test_every_kind_of_change_is_told_with_both_sides() -> None:
    records = [
        call(0, "connected", 5, held=True),
        call(1, "alerting", 600),
        call(2, "connected", 3),
        call(3, "connected", 4, held=False),
        rubbish(4),
        heartbeat(5),
    ]
    told = [each for each, _ in told_of(records)]
    assert [brief(each) for each in told] == [
        [("observation_added", "connected", None, at(5), None), ("detail_won", "held", None, True, None)],
        [("observation_added", "alerting", None, at(600), None)],
        [("time_lowered", "connected", at(5), at(3), None)],
        [("time_kept", "connected", None, at(3), at(4)), ("detail_lost", "held", None, True, False)],
        [],
        [],
    ]
    assert [(each.disposition, each.reason) for each in told[3:]] == [
        ("unchanged", ""),
        ("dead_lettered", "bad_json"),
        ("ignored", "heartbeat"),
    ]
    assert [[(each.op, each.to_state) for each in one.transitions] for one in told[:3]] == [
        [("assert", "connected")],
        [("retract", "connected"), ("assert", "alerting"), ("assert", "connected")],
        [("retract", "connected"), ("retract", "alerting"), ("assert", "alerting"), ("assert", "connected")],
    ]


class Shadow:
    """A conversation put together from nothing but what is told of its records."""

    def __init__(self) -> None:
        self.timelines: dict[Place, dict[str, Any]] = defaultdict(dict)
        self.details: dict[Place, dict[str, Any]] = defaultdict(dict)

    def take(self, each: Effect) -> None:
        place = (each.participant_id, each.media, each.communication_id, each.session_digest)
        match each.kind:
            case "observation_added" | "time_lowered":
                assert self.timelines[place].get(each.what) == each.before
                self.timelines[place][each.what] = each.after
            case "observation_dropped":
                assert self.timelines[place].pop(each.what) == each.before
            case "time_kept":
                assert self.timelines[place][each.what] == each.after != each.shown
            case "detail_won":
                assert self.details[place].get(each.what) == each.before
                self.details[place][each.what] = each.after
            case "detail_dropped":
                assert self.details[place].pop(each.what) == each.before
            case "detail_lost":
                assert self.details[place][each.what] == each.after != each.shown
            case "placed":
                self.details[place]["placed"] = each.after


def spelled(one: Observation) -> str:
    ended = " (ended)" if one.state in {"vanished", "new.state"} and one.rank == 2 else ""
    return one.state + (f" (cycle {one.cycle})" if one.cycle else ended)


def documents(known: Known) -> tuple[dict[Place, Any], dict[Place, Any]]:
    timelines, details = {}, {}
    for participant in known.state.participants:
        owners: list[tuple[Place, Any]] = [((participant.participant_id, None, None, None), participant.details)]
        for each in participant.communications:
            place = (participant.participant_id, each.media, each.communication_id, each.session_digest)
            owners.append((place, each.details))
            timelines[place] = {spelled(one): {"time": one.time, "timeClass": one.time_class} for one in each.timeline}
            if each.standing is not None:
                joined = "" if each.joined_to is None else f" {each.joined_to}"
                details[place] = {"placed": f"{each.standing}{joined}"}
        for place, said in owners:
            names = zip(said.__struct_fields__, said.__struct_encode_fields__, strict=True)
            shown = {name: value for field, name in names if (value := getattr(said, field)) is not None}
            details.setdefault(place, {}).update(shown)
    return timelines, {place: said for place, said in details.items() if said}


@settings(max_examples=60)
@given(histories())
def test_what_is_told_of_the_records_of_a_conversation_adds_up_to_its_state(history: list[Record]) -> None:
    shadows: dict[str, Shadow] = defaultdict(Shadow)
    for explanation, known in told_of(history):
        if known is None:
            assert not explanation.effects
            continue
        shadow = shadows[known.state.conversation_id]
        for each in explanation.effects:
            shadow.take(each)
            assert explanation.disposition == "applied" or each.kind in {"time_kept", "detail_lost"}
        assert (dict(shadow.timelines), {key: each for key, each in shadow.details.items() if each}) == documents(known)


@given(noise_records())
def test_nothing_is_told_of_noise_but_what_became_of_it(record: Record) -> None:
    ((explanation, known),) = told_of([record])
    assert known is not None or not (explanation.effects or explanation.transitions)


@settings(max_examples=60)
@given(histories())
def test_a_state_without_its_source_is_all_the_rest(history: list[Record]) -> None:
    for known in play(history).known.values():
        source = b',"source":{"topic":"%s","partition":0,"offset":%d}'
        told = source % (known.state.source.topic.encode(), known.state.source.offset)
        assert source_of(known.published) == known.state.source
        assert without_source(known.published) == known.published.replace(told, b"")
