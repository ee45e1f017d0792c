"""What one record shows of one communication or participant, whichever shape it came in.

This is where wire values become the values that are kept: enumerations folded, times read and judged, secrets
replaced by digests, personal data left behind.
"""

import hashlib
from functools import lru_cache

from msgspec import Struct

from consumer.core import times
from consumer.core.lifecycle import (
    CONNECTED,
    DISCONNECT_TYPES,
    DISCONNECTED,
    LIVE,
    PARKED,
    RANKS,
    TERMINATED,
    folded,
    rank,
)
from consumer.core.timeline import Sighting
from schemas.inbound import (
    AfterCallWork,
    Call,
    Callback,
    Chat,
    CobrowseSession,
    Communication,
    Email,
    FlatParticipant,
    Message,
    Participant,
    Reference,
    RoutedCommunication,
    SocialExpression,
    WireTime,
    Wrapup,
)
from schemas.state import CommunicationDetails, Media, ParticipantDetails, Version

CONTROL_CHANGE_MS = 2_000
"""A provider event this much later than the state's own time was another event, such as a change of control."""

_DURATION_MAX_S = 2**53  # beyond it a JSON number is not exact


class Reading(Struct):
    """How the times and ids of one snapshot are read, and what was noticed on the way.

    `notes` names oddities from a closed set, once per occurrence, to be counted.
    """

    snapshot_ms: int
    latest_ms: int
    digest_key: bytes
    notes: list[str]

    def time(self, wire: WireTime) -> int | None:
        """A plausible time in epoch milliseconds, else None: one bad clock never stops or reorders anything else."""
        if wire is None:
            return None
        read = times.parse(wire)
        if read is None or not times.EARLIEST_MS <= read <= self.latest_ms:
            self.notes.append("implausible_time")
            return None
        return read

    def digest(self, secret: str | None) -> str | None:
        """What is kept of a capability-like id."""
        return _digest(secret, self.digest_key) if secret else None


class Showing(Struct, gc=False):
    """One communication as one record shows it."""

    communication_id: str | None
    session_digest: str | None
    """What tells co-browse sessions of the flat shape apart, which have no id there."""
    version: Version
    details: CommunicationDetails
    sightings: list[Sighting]


@lru_cache(maxsize=16_384)
def _digest(secret: str, key: bytes) -> str:
    return hashlib.blake2b(secret.encode(), digest_size=16, key=key).hexdigest()


def participant_details(shown: Participant | FlatParticipant) -> ParticipantDetails:
    """What a record shows of a participant itself."""
    purpose = None if shown.purpose is None else folded(shown.purpose)
    if isinstance(shown, Participant):
        ids = (shown.user_id, shown.queue_id, shown.team_id, shown.external_contact_id)
    else:
        ids = (_id(shown.user), _id(shown.queue), _id(shown.team), _id(shown.external_contact))
    return ParticipantDetails(purpose, *ids, shown.wrapup_required)


def _id(reference: Reference | None) -> str | None:
    return None if reference is None else reference.id


def of_nested(shown: Communication, reading: Reading) -> Showing | None:
    """A communication of the nested shape; None, and a note, if it has no id or no state."""
    if not shown.id:
        reading.notes.append("communication_without_id")
        return None
    if not shown.state:
        reading.notes.append("communication_without_state")
        return None
    details = CommunicationDetails(_folded(shown.initial_state), _disconnect_type(shown, reading), shown.provider)
    provider_time: WireTime = None
    park_time: WireTime = None
    work: AfterCallWork | None = None
    if isinstance(shown, RoutedCommunication):
        work = shown.after_call_work
        details.peer_id = shown.peer_id
        details.after_call_work_required = shown.after_call_work_required
        _add_wrapup(details, shown.wrapup)
    if isinstance(shown, CobrowseSession):
        provider_time = shown.provider_event_time
        _add_cobrowse(details, shown, reading)
        details.room_digest = reading.digest(shown.room_id)
    elif isinstance(shown, (Call, Callback, Email, Message)):
        details.direction = _folded(shown.direction)
        details.held = shown.held
        if isinstance(shown, Call):
            details.muted = shown.muted
        elif isinstance(shown, Message):
            details.message_type = _folded(shown.type)
            park_time = shown.park_time
        elif isinstance(shown, Email):
            park_time = shown.park_time
    elif isinstance(shown, (Chat, SocialExpression)):
        details.held = shown.held
    work_start = work_end = None
    if work is not None:
        details.after_call_work_state = _folded(work.state)
        work_start, work_end = reading.time(work.start_time), reading.time(work.end_time)
    shown_times = (
        reading.time(provider_time),
        reading.time(shown.connected_time),
        reading.time(shown.disconnected_time),
        reading.time(park_time),
    )
    return _showing(shown.id, None, shown.state, shown_times, (work_start, work_end), details, reading)


def of_flat(shown: FlatParticipant, medium: Media, reading: Reading) -> Showing | None:
    """The communication that stands on a participant of the flat shape; None, and a note, if it has no state."""
    if not shown.state:
        reading.notes.append("communication_without_state")
        return None
    details = CommunicationDetails(_folded(shown.initial_state), _disconnect_type(shown, reading), shown.provider)
    details.direction = _folded(shown.direction)
    details.held = shown.held
    details.peer_id = shown.peer
    _add_wrapup(details, shown.wrapup)
    provider_time: WireTime = None
    session_digest = None
    if medium == "cobrowse":
        provider_time = shown.provider_event_time
        _add_cobrowse(details, shown, reading)
        session_digest = details.cobrowse_session_digest
    elif medium == "call":
        details.muted = shown.muted
    elif medium == "message":
        details.message_type = _folded(shown.type)
    work_times = reading.time(shown.start_acw_time), reading.time(shown.end_acw_time)
    shown_times = (
        reading.time(provider_time),
        reading.time(shown.connected_time),
        reading.time(shown.end_time),
        reading.time(shown.park_time),
    )
    return _showing(None, session_digest, shown.state, shown_times, work_times, details, reading)


def _showing(
    communication_id: str | None,
    session_digest: str | None,
    wire_state: str,
    shown_times: tuple[int | None, int | None, int | None, int | None],
    work_times: tuple[int | None, int | None],
    details: CommunicationDetails,
    reading: Reading,
) -> Showing:
    provider, connected, disconnected, parked = shown_times
    state = folded(wire_state)
    if state not in RANKS:
        reading.notes.append("unknown_state")
    state_rank = rank(state, ended=disconnected is not None)
    cycle = times.text(parked) if parked is not None and state_rank == LIVE else ""
    work_start, work_end = work_times
    if work_start is not None:
        details.after_call_work_start_time = times.text(work_start)
    if work_end is not None:
        details.after_call_work_end_time = times.text(work_end)
    latest = max((time for time in (*shown_times, *work_times) if time is not None), default=None)
    version = Version(state_rank, cycle, "" if latest is None else times.text(latest), times.text(reading.snapshot_ms))
    sightings = [_entered(state, state_rank, cycle, shown_times, reading.snapshot_ms)]
    if state_rank >= LIVE:
        if connected is not None:
            sightings.append(Sighting(LIVE, "", CONNECTED, "state", times.text(connected)))
        if parked is not None:
            park_text = times.text(parked)
            sightings.append(Sighting(LIVE, park_text, PARKED, "state", park_text))
        if state_rank == TERMINATED and disconnected is not None:
            sightings.append(Sighting(DISCONNECTED, "", "disconnected", "state", times.text(disconnected)))
    return Showing(communication_id, session_digest, version, details, sightings)


def _entered(
    state: str,
    state_rank: int,
    cycle: str,
    shown_times: tuple[int | None, int | None, int | None, int | None],
    snapshot_ms: int,
) -> Sighting:
    """When the state shown was entered: the provider's event time, the state's own time, or at most the snapshot's."""
    provider, connected, disconnected, parked = shown_times
    own: int | None = None
    if state_rank >= DISCONNECTED:
        own = disconnected
    elif state == PARKED:
        own = parked
    elif state == CONNECTED and connected is not None and (parked is None or parked <= connected):
        own = connected
    if provider is not None and (own is None or provider - own <= CONTROL_CHANGE_MS):
        return Sighting(state_rank, cycle, state, "provider", times.text(provider))
    if own is not None:
        return Sighting(state_rank, cycle, state, "state", times.text(own))
    return Sighting(state_rank, cycle, state, "snapshot", times.text(snapshot_ms))


def _folded(value: str | None) -> str | None:
    return None if value is None else folded(value)


def _disconnect_type(shown: Communication | FlatParticipant, reading: Reading) -> str | None:
    if shown.disconnect_type is None:
        return None
    disconnect_type = folded(shown.disconnect_type)
    if disconnect_type not in DISCONNECT_TYPES:
        reading.notes.append("unknown_disconnect_type")
    return disconnect_type


def _add_wrapup(details: CommunicationDetails, wrapup: Wrapup | None) -> None:
    if wrapup is None:
        return
    details.wrapup_code = wrapup.code
    duration = wrapup.duration_seconds
    if duration is not None and -_DURATION_MAX_S <= duration <= _DURATION_MAX_S:
        details.wrapup_duration_seconds = duration


def _add_cobrowse(details: CommunicationDetails, shown: CobrowseSession | FlatParticipant, reading: Reading) -> None:
    details.cobrowse_session_digest = reading.digest(shown.cobrowse_session_id)
    details.cobrowse_role = _folded(shown.cobrowse_role)
    if shown.controlling is not None:
        details.controlling = sorted({controlled for controlled in shown.controlling if controlled is not None})
    if shown.viewer_url:
        details.viewable = True
