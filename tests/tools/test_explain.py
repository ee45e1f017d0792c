"""Explanations add up to the state: they have every change that a record made, and no other."""

from collections import defaultdict
from typing import Any

from hypothesis import given

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState, source_of, without_source
from consumer.core.step import step
from consumer.tools.explain import Effect, Explanation, explain
from schemas.state import Observation
from tests.core.play import play
from tests.strategies import FEWER, at, histories, noise_records
from tests.worker.scenes import call, heartbeat, rubbish

RULES = Rules()
Owner = tuple[Any, ...]
"""Participant id, media, communication id and session digest."""


def explain_all(records: list[Record]) -> list[tuple[Explanation, StoredState | None]]:
    """The explanation of every record, with the state of its conversation afterwards."""
    states: dict[str, StoredState] = {}
    stream_ms, explained = None, []
    for record in records:
        lookups: list[StoredState | None] = []

        def lookup(key: str, lookups: list[StoredState | None] = lookups) -> StoredState | None:
            lookups.append(states.get(key))
            return lookups[0]

        outcome = step(record, RULES, stream_ms, lookup)
        stream_ms = outcome.stream_ms
        explanation = explain(record, RULES, lookups[0] if lookups else None, outcome)
        if isinstance(outcome, Applied):
            states[outcome.conversation_id] = outcome.stored
        explained.append((explanation, states.get(outcome.conversation_id)))
    return explained


def shorten(explanation: Explanation) -> list[tuple[Any, ...]]:
    """Kind, subject, before, after and shown of every effect."""
    return [
        (
            effect.kind,
            effect.what,
            *(side["time"] if isinstance(side, dict) else side for side in (effect.before, effect.after, effect.shown)),
        )
        for effect in explanation.effects
    ]


def test_every_kind_of_change_has_both_sides() -> None:
    records = [
        call(0, "connected", 5, held=True),
        call(1, "alerting", 600),
        call(2, "connected", 3),
        call(3, "connected", 4, held=False),
        rubbish(4),
        heartbeat(5),
    ]
    explanations = [explanation for explanation, _ in explain_all(records)]
    assert [shorten(explanation) for explanation in explanations] == [
        [("observation_added", "connected", None, at(5), None), ("detail_won", "held", None, True, None)],
        [("observation_added", "alerting", None, at(600), None)],
        [("time_lowered", "connected", at(5), at(3), None)],
        [("time_kept", "connected", None, at(3), at(4)), ("detail_lost", "held", None, True, False)],
        [],
        [],
    ]
    assert [(explanation.disposition, explanation.reason) for explanation in explanations[3:]] == [
        ("unchanged", ""),
        ("dead_lettered", "bad_json"),
        ("ignored", "heartbeat"),
    ]
    operations = [
        [(transition.op, transition.to_state) for transition in explanation.transitions]
        for explanation in explanations[:3]
    ]
    assert operations == [
        [("assert", "connected")],
        [("retract", "connected"), ("assert", "alerting"), ("assert", "connected")],
        [("retract", "connected"), ("retract", "alerting"), ("assert", "alerting"), ("assert", "connected")],
    ]


class Reconstruction:
    """A conversation built from nothing but the effects of its records."""

    def __init__(self) -> None:
        self.timelines: dict[Owner, dict[str, Any]] = defaultdict(dict)
        self.details: dict[Owner, dict[str, Any]] = defaultdict(dict)

    def apply(self, effect: Effect) -> None:
        owner = (effect.participant_id, effect.media, effect.communication_id, effect.session_digest)
        timeline, details, what = self.timelines[owner], self.details[owner], effect.what
        match effect.kind:
            case "observation_added" | "time_lowered":
                assert timeline.get(what) == effect.before
                timeline[what] = effect.after
            case "observation_dropped":
                assert timeline.pop(what) == effect.before
            case "time_kept":
                assert timeline[what] == effect.after != effect.shown
            case "detail_won":
                assert details.get(what) == effect.before
                details[what] = effect.after
            case "detail_dropped":
                assert details.pop(what) == effect.before
            case "detail_lost":
                assert details[what] == effect.after != effect.shown
            case "placed":
                details["placed"] = effect.after

    def documents(self) -> tuple[dict[Owner, Any], dict[Owner, Any]]:
        """Timelines and details, without those that are empty."""
        return drop_empty(self.timelines), drop_empty(self.details)


def drop_empty(by_owner: dict[Owner, Any]) -> dict[Owner, Any]:
    return {owner: members for owner, members in by_owner.items() if members}


def name_of(observation: Observation) -> str:
    is_ended = observation.state in {"vanished", "new.state"} and observation.rank == 2
    cycle = f" (cycle {observation.cycle})" if observation.cycle else ""
    return observation.state + (cycle or (" (ended)" if is_ended else ""))


def documents_of(stored: StoredState) -> tuple[dict[Owner, Any], dict[Owner, Any]]:
    """Timelines and details of a state, without those that are empty."""
    timelines: dict[Owner, Any] = {}
    details: dict[Owner, Any] = {}
    for participant in stored.state.participants:
        owners: list[tuple[Owner, Any]] = [((participant.participant_id, None, None, None), participant.details)]
        for communication in participant.communications:
            owner = (
                participant.participant_id,
                communication.media,
                communication.communication_id,
                communication.session_digest,
            )
            owners.append((owner, communication.details))
            timelines[owner] = {
                name_of(observation): {"time": observation.time, "timeClass": observation.time_class}
                for observation in communication.timeline
            }
            if communication.standing is not None:
                joined = "" if communication.joined_to is None else f" {communication.joined_to}"
                details[owner] = {"placed": f"{communication.standing}{joined}"}
        for owner, struct in owners:
            names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
            values = {name: value for field, name in names if (value := getattr(struct, field)) is not None}
            details.setdefault(owner, {}).update(values)
    return drop_empty(timelines), drop_empty(details)


@FEWER
@given(histories())
def test_effects_of_all_records_add_up_to_the_state(history: list[Record]) -> None:
    reconstructions: dict[str, Reconstruction] = defaultdict(Reconstruction)
    for explanation, stored in explain_all(history):
        if stored is None:
            assert not explanation.effects
            continue
        reconstruction = reconstructions[stored.state.conversation_id]
        for effect in explanation.effects:
            reconstruction.apply(effect)
            assert explanation.disposition == "applied" or effect.kind in {"time_kept", "detail_lost"}
        assert reconstruction.documents() == documents_of(stored)


@given(noise_records())
def test_noise_has_no_effects(record: Record) -> None:
    ((explanation, stored),) = explain_all([record])
    assert stored is not None or not (explanation.effects or explanation.transitions)


@FEWER
@given(histories())
def test_a_state_without_its_source_keeps_everything_else(history: list[Record]) -> None:
    for stored in play(history).known.values():
        source = b',"source":{"topic":"%s","partition":0,"offset":%d}'
        encoded = source % (stored.state.source.topic.encode(), stored.state.source.offset)
        assert source_of(stored.published) == stored.state.source
        assert without_source(stored.published) == stored.published.replace(encoded, b"")
