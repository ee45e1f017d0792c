"""Explain what one record changed: compare the state before it with the state after it.

It implements no rule of its own: `step` gives the outcome of the record, `decode` gives its updates, and the two states
show which value is current.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from msgspec import Struct, structs

from consumer.core import timestamps
from consumer.core.lifecycle import LIVE, RANKS
from consumer.core.outcomes import Applied, DeadLettered, Outcome, Unchanged
from consumer.core.participant import identity
from consumer.core.reasons import Anomaly, Disposition, Reason
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode
from consumer.core.state_codec import StoredState
from consumer.core.updates import CommunicationUpdate, ParticipantUpdate
from schemas.state import (
    CommunicationDetails,
    CommunicationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
)
from schemas.transition import Transition

EffectKind = Literal[
    "observation_added",
    "observation_dropped",
    "time_lowered",
    "time_kept",
    "detail_won",
    "detail_lost",
    "detail_dropped",
    "placed",
]
EFFECT_KINDS: tuple[EffectKind, ...] = get_args(EffectKind)


class Effect(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One change that a record made to a conversation, or that it did not get to make.

    `before` is the value before the record and `after` the value after it. If the record's own value lost, `after` is
    the value that won and `shown` the record's. A detail is dropped if the communication that showed it now counts
    under another one.
    """

    kind: EffectKind
    participant_id: str
    what: str
    """For an observation, its state, with the cycle if it has one; for a detail, its published name."""
    media: Media | None = None
    """None for a detail of the participant itself."""
    communication_id: str | None = None
    session_digest: str | None = None
    """Identifies a co-browse session of the flat shape, which has no id."""
    before: Any = None
    after: Any = None
    shown: Any = None


class Explanation(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One record of a conversation, and everything that it changed."""

    partition: int
    offset: int
    disposition: Disposition
    timestamp: str | None = None
    """The Kafka timestamp, ISO-8601 UTC; None if the record has none."""
    snapshot_time: str | None = None
    reason: Reason = ""
    detail: str = ""
    anomalies: tuple[Anomaly, ...] = ()
    effects: tuple[Effect, ...] = ()
    transitions: tuple[Transition, ...] = ()


def explain(record: Record, rules: Rules, before: StoredState | None, outcome: Outcome) -> Explanation:
    """What a record changed, given what was stored of its conversation before and the outcome of its `step`."""
    return Explanation(
        record.partition,
        record.offset,
        outcome.disposition,
        timestamps.normalize(record.timestamp_ms),
        None if outcome.snapshot_ms is None else timestamps.to_text(outcome.snapshot_ms),
        outcome.reason,
        outcome.detail if isinstance(outcome, DeadLettered) else "",
        outcome.anomalies,
        tuple(_compare_states(record, rules, before, outcome)),
        outcome.transitions if isinstance(outcome, Applied) else (),
    )


def _compare_states(record: Record, rules: Rules, before: StoredState | None, outcome: Outcome) -> Iterator[Effect]:
    match outcome:
        case Applied():
            after = outcome.stored
        case Unchanged() if before is not None:
            after = before
        case _:
            return
    snapshot = decode(record, rules)
    parts = (*snapshot.others, snapshot) if isinstance(snapshot, Snapshot) else ()
    updates = [update for part in parts for update in part.participants if update]
    old = (
        {} if before is None else {participant.participant_id: participant for participant in before.state.participants}
    )
    for participant in after.state.participants:
        participant_id = participant.participant_id
        own = [update for update in updates if update.participant_id == participant_id]
        yield from _compare_participants(old.get(participant_id), participant, own)


def _compare_participants(
    before: ParticipantState | None, after: ParticipantState, updates: Sequence[ParticipantUpdate]
) -> Iterator[Effect]:
    owner = Effect("detail_won", after.participant_id, "")
    yield from _compare_details(
        owner, None if before is None else before.details, after.details, [update.details for update in updates]
    )
    old = {} if before is None else {identity(communication): communication for communication in before.communications}
    for communication in after.communications:
        key = identity(communication)
        own = [update for participant in updates for update in participant.updates if identity(update) == key]
        yield from _compare_communications(after.participant_id, old.get(key), communication, own)


def _compare_communications(
    participant_id: str,
    before: CommunicationState | None,
    after: CommunicationState,
    updates: Sequence[CommunicationUpdate],
) -> Iterator[Effect]:
    owner = Effect("detail_won", participant_id, "", after.media, after.communication_id, after.session_digest)
    observations = [observation for update in updates for observation in update.observations]
    yield from _compare_timelines(owner, [] if before is None else before.timeline, after.timeline, observations)
    yield from _compare_details(
        owner, None if before is None else before.details, after.details, [update.details for update in updates]
    )
    standing = None if before is None else before.standing
    if after.standing != standing or (before is not None and after.joined_to != before.joined_to):
        placed = after.standing if after.joined_to is None else f"{after.standing} {after.joined_to}"
        yield structs.replace(owner, kind="placed", what="standing", before=standing, after=placed)


def _compare_timelines(
    owner: Effect, before: list[Observation], after: list[Observation], observed: Sequence[Observation]
) -> Iterator[Effect]:
    old, new = ({_key(observation): observation for observation in timeline} for timeline in (before, after))
    for key, observation in new.items():
        previous = old.get(key)
        if previous is None:
            yield _on_observation(owner, "observation_added", observation, after=_to_fields(observation))
        elif previous != observation:
            sides = {"before": _to_fields(previous), "after": _to_fields(observation)}
            yield _on_observation(owner, "time_lowered", observation, **sides)
    for key, observation in old.items():
        if key not in new:
            yield _on_observation(owner, "observation_dropped", observation, before=_to_fields(observation))
    for observation in dict.fromkeys(observed):
        current = new.get(_key(observation))
        # An observation without a time has the snapshot's, an upper bound: that it loses explains nothing.
        if observation.time and current is not None and _time(current) != _time(observation):
            yield _on_observation(owner, "time_kept", current, after=_to_fields(current), shown=_to_fields(observation))


def _on_observation(owner: Effect, kind: EffectKind, observation: Observation, **sides: Any) -> Effect:
    what = observation.state
    if observation.cycle:
        what = f"{what} (cycle {observation.cycle})"
    elif what not in RANKS and observation.rank > LIVE:
        what = f"{what} (ended)"
    return structs.replace(owner, kind=kind, what=what, **sides)


def _key(observation: Observation) -> tuple[int, str, str]:
    """A timeline holds at most one observation per key."""
    return observation.rank, observation.state, observation.cycle


def _time(observation: Observation) -> tuple[str, str]:
    return observation.time, observation.time_class


def _to_fields(observation: Observation) -> dict[str, str]:
    return {"time": observation.time, "timeClass": observation.time_class}


def _compare_details(
    owner: Effect,
    before: CommunicationDetails | ParticipantDetails | None,
    after: CommunicationDetails | ParticipantDetails,
    shown: Sequence[CommunicationDetails | ParticipantDetails],
) -> Iterator[Effect]:
    for field, name in zip(after.__struct_fields__, after.__struct_encode_fields__, strict=True):
        old, new = None if before is None else getattr(before, field), getattr(after, field)
        if new is None and old is not None:
            yield structs.replace(owner, kind="detail_dropped", what=name, before=old)
        elif new != old:
            yield structs.replace(owner, kind="detail_won", what=name, before=old, after=new)
        for details in shown:
            value = getattr(details, field)
            if value is not None and value != new:
                yield structs.replace(owner, kind="detail_lost", what=name, after=new, shown=value)
