"""What one record shows of a participant and its communications, normalized."""

from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

from consumer.core import lww
from consumer.core.reasons import Anomaly
from schemas.state import CommunicationDetails, Media, Observation, ParticipantDetails, Version


class CommunicationUpdate(Struct, frozen=True, gc=False):
    """One communication as a record shows it."""

    media: Media
    communication_id: str | None
    session_digest: str | None
    """Distinguishes co-browse sessions of the flat shape, which have no id there."""
    version: Version
    """Without the snapshot time, which is that of the record. `own_time` is the latest time shown."""
    details: CommunicationDetails
    observations: tuple[Observation, ...]
    """An empty time stands for that of the snapshot."""


class ParticipantUpdate(Struct, frozen=True, gc=False):
    """One participant as a record shows it."""

    participant_id: str | None
    details: ParticipantDetails
    updates: tuple[CommunicationUpdate, ...]
    """Its communications, those of one medium together."""
    anomalies: tuple[Anomaly, ...]
    """Once per occurrence."""
    newest: str
    """The newest plausible time shown, as published; empty if there is none."""
    lists_communications: bool
    """Whether it has an array of communications, which only the nested shape has."""
    has_state: bool
    """Whether a participant of the nested shape has a state of its own, as only the flat shape does."""
    listed: int
    """Communications listed, usable or not, and entries of a list of controlled participants that is too long. Beyond
    the limit asked for, communications were not read."""


def combine(updates: Sequence[ParticipantUpdate]) -> ParticipantUpdate:
    """Combine the updates of a participant that one record lists several times."""
    first, *others = updates
    details = first.details
    for update in others:  # of the same time, so the greater of two values is kept
        merged = lww.merge(details, "", {}, update.details, "")
        details = details if merged is None else merged[0]
    return ParticipantUpdate(
        participant_id=first.participant_id,
        details=details,
        updates=tuple(chain.from_iterable([update.updates for update in updates])),
        anomalies=tuple(chain.from_iterable([update.anomalies for update in updates])),
        newest=max([update.newest for update in updates]),
        lists_communications=any(update.lists_communications for update in updates),
        has_state=any(update.has_state for update in updates),
        listed=sum([update.listed for update in updates]),
    )
