"""What one record changed, for people who ask why: the state before it compared with the state after it.

No rule is repeated here. What became of the record is what `step` says; what it shows is what `decode` says; which
value stands is read from the two states.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from msgspec import Struct, structs

from consumer.core import times
from consumer.core.decode import Snapshot, decode
from consumer.core.known import Known
from consumer.core.lifecycle import LIVE, RANKS
from consumer.core.participant import identity
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.showing import Showing, ShownParticipant
from consumer.core.step import Disposition, Outcome
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
    """One thing that a record did to a conversation, or failed to do.

    `before` is what was known and `after` what is known now. Of a detail that lost and of a time that was kept,
    `after` is what stands and `shown` what the record said against it. A detail is dropped with the communication that
    showed it, when that counts elsewhere.
    """

    kind: EffectKind
    participant_id: str
    what: str
    """The state of an observation, with what tells it from others of that state; the published name of a detail."""
    media: Media | None = None
    """None for a detail of the participant itself."""
    communication_id: str | None = None
    session_digest: str | None = None
    """What tells co-browse sessions of the flat shape apart, which have no id."""
    before: Any = None
    after: Any = None
    shown: Any = None


class Explanation(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One record of a conversation, and everything that it changed."""

    partition: int
    offset: int
    disposition: Disposition
    timestamp: str | None = None
    """The record's, as published; None where it has none."""
    snapshot_time: str | None = None
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    transitions: tuple[Transition, ...] = ()


def explained(record: Record, rules: Rules, before: Known | None, outcome: Outcome) -> Explanation:
    """What `outcome`, that of `step` with `before` for what was known, changed."""
    return Explanation(
        record.partition,
        record.offset,
        outcome.disposition,
        times.published(record.timestamp_ms),
        None if outcome.snapshot_ms is None else times.text(outcome.snapshot_ms),
        outcome.reason,
        outcome.detail,
        outcome.notes,
        tuple(_effects(record, rules, before, outcome)),
        outcome.transitions,
    )


def _effects(record: Record, rules: Rules, before: Known | None, outcome: Outcome) -> Iterator[Effect]:
    after = outcome.known or (before if outcome.disposition == "unchanged" else None)
    if after is None:
        return
    snapshot = decode(record, rules)
    shown = snapshot.participants if isinstance(snapshot, Snapshot) else []
    old = {each.participant_id: each for each in before.state.participants} if before is not None else {}
    for participant in after.state.participants:
        showings = [each for each in shown if each is not None and each.participant_id == participant.participant_id]
        yield from _of_participant(old.get(participant.participant_id), participant, showings)


def _of_participant(
    before: ParticipantState | None, after: ParticipantState, shown: Sequence[ShownParticipant]
) -> Iterator[Effect]:
    owner = Effect("detail_won", after.participant_id, "")
    said = [each.details for each in shown]
    yield from _of_details(owner, None if before is None else before.details, after.details, said)
    old = {identity(each): each for each in before.communications} if before is not None else {}
    for communication in after.communications:
        itself = identity(communication)
        showings = [each for one in shown for each in one.showings if identity(each) == itself]
        yield from _of_communication(after.participant_id, old.get(itself), communication, showings)


def _of_communication(
    participant_id: str, before: CommunicationState | None, after: CommunicationState, shown: Sequence[Showing]
) -> Iterator[Effect]:
    owner = Effect("detail_won", participant_id, "", after.media, after.communication_id, after.session_digest)
    sightings = [sighting for each in shown for sighting in each.sightings]
    yield from _of_timeline(owner, [] if before is None else before.timeline, after.timeline, sightings)
    said = [each.details for each in shown]
    yield from _of_details(owner, None if before is None else before.details, after.details, said)
    was = None if before is None else before.standing
    if after.standing != was or (before is not None and after.joined_to != before.joined_to):
        place = after.standing if after.joined_to is None else f"{after.standing} {after.joined_to}"
        yield structs.replace(owner, kind="placed", what="standing", before=was, after=place)


def _of_timeline(
    owner: Effect, before: list[Observation], after: list[Observation], shown: Sequence[Observation]
) -> Iterator[Effect]:
    old, new = ({_key(each): each for each in timeline} for timeline in (before, after))
    for key, observation in new.items():
        kept = old.get(key)
        if kept is None:
            yield _effect(owner, "observation_added", observation, after=_dated(observation))
        elif kept != observation:
            yield _effect(owner, "time_lowered", observation, before=_dated(kept), after=_dated(observation))
    for key, observation in old.items():
        if key not in new:
            yield _effect(owner, "observation_dropped", observation, before=_dated(observation))
    for key, time, time_class in dict.fromkeys((_key(each), each.time, each.time_class) for each in shown if each.time):
        stands = new.get(key)
        if stands is not None and (stands.time, stands.time_class) != (time, time_class):
            said = {"time": time, "timeClass": time_class}
            yield _effect(owner, "time_kept", stands, after=_dated(stands), shown=said)


def _effect(owner: Effect, kind: EffectKind, observation: Observation, **told: Any) -> Effect:
    what = observation.state
    if observation.cycle:
        what = f"{what} (cycle {observation.cycle})"
    elif what not in RANKS and observation.rank > LIVE:
        what = f"{what} (ended)"
    return structs.replace(owner, kind=kind, what=what, **told)


def _key(each: Observation) -> tuple[int, str, str]:
    """What a timeline holds at most one observation of."""
    return each.rank, each.state, each.cycle


def _dated(each: Observation) -> dict[str, str]:
    return {"time": each.time, "timeClass": each.time_class}


def _of_details(
    owner: Effect,
    before: CommunicationDetails | ParticipantDetails | None,
    after: CommunicationDetails | ParticipantDetails,
    shown: Sequence[CommunicationDetails | ParticipantDetails],
) -> Iterator[Effect]:
    for field, name in zip(after.__struct_fields__, after.__struct_encode_fields__, strict=True):
        was, stands = None if before is None else getattr(before, field), getattr(after, field)
        if stands is None and was is not None:
            yield structs.replace(owner, kind="detail_dropped", what=name, before=was)
        elif stands != was:
            yield structs.replace(owner, kind="detail_won", what=name, before=was, after=stands)
        for each in shown:
            said = getattr(each, field)
            if said is not None and said != stands:
                yield structs.replace(owner, kind="detail_lost", what=name, after=stands, shown=said)
