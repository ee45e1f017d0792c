"""What one record shows of one participant and its communications, whichever shape it came in.

This is where wire values become the values that are kept: enumerations folded, times read and judged, secrets
replaced by digests, personal data left behind.

A snapshot repeats most participants of the one before it byte for byte, so what was read of a participant is
remembered by its bytes. Only two things in a reading depend on the record that carries it: the snapshot time, which
is left out of it, and which times lie too far in the future, which is checked whenever a reading is used again.
"""

import hashlib
from functools import lru_cache
from typing import Final

import msgspec
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
from consumer.core.topics import NESTED_ARRAYS
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
from schemas.state import CommunicationDetails, Media, ParticipantDetails

CONTROL_CHANGE_MS = 2_000
"""A provider event this much later than the state's own time was another event, such as a change of control."""

_DURATION_MAX_S = 2**53  # beyond it a JSON number is not exact
_REMEMBERED_BYTES_MAX = 4_096
_REMEMBERED_MAX = 16_384
_ARRAYS: Final = tuple(NESTED_ARRAYS.items())
_NESTED: Final = msgspec.json.Decoder(Participant)
_FLAT: Final = msgspec.json.Decoder(FlatParticipant)


class Showing(Struct, frozen=True, gc=False):
    """One communication as a record shows it."""

    communication_id: str | None
    session_digest: str | None
    """What tells co-browse sessions of the flat shape apart, which have no id there."""
    rank: int
    cycle: str
    own_time: str
    """The latest time that the communication shows; with rank, cycle and the snapshot time it is the version."""
    details: CommunicationDetails
    sightings: tuple[Sighting, ...]


class ShownParticipant(Struct, frozen=True, gc=False):
    """One participant as a record shows it."""

    participant_id: str | None
    details: ParticipantDetails
    showings: tuple[tuple[Media, tuple[Showing, ...]], ...]
    """By medium, each medium once."""
    notes: tuple[str, ...]
    """Oddities from a closed set, once per occurrence, to be counted."""
    newest_ms: int
    """The newest of the plausible times shown, 0 if there is none."""
    lists_communications: bool
    """Whether an array of communications was there, which only the nested shape has."""


class _Reading(Struct):
    """How the times and ids of one participant are read, and what was noticed on the way."""

    latest_ms: int
    digest_key: bytes
    notes: list[str] = []
    newest_ms: int = 0

    def time(self, wire: WireTime) -> int | None:
        """A plausible time in epoch milliseconds, else None: one bad clock never stops or reorders anything else."""
        if wire is None:
            return None
        read = times.parse(wire)
        if read is None or not times.EARLIEST_MS <= read <= self.latest_ms:
            self.notes.append("implausible_time")
            return None
        self.newest_ms = max(self.newest_ms, read)
        return read

    def digest(self, secret: str | None) -> str | None:
        """What is kept of a capability-like id."""
        return hashlib.blake2b(secret.encode(), digest_size=16, key=self.digest_key).hexdigest() if secret else None


def shown_participant(raw: bytes, medium: Media | None, digest_key: bytes, latest_ms: int) -> ShownParticipant:
    """A participant from its JSON: of the flat shape with its medium, else of the nested one.

    A time after `latest_ms` is implausible. Raises msgspec.DecodeError and UnicodeDecodeError.
    """
    if len(raw) > _REMEMBERED_BYTES_MAX:
        return _read(raw, medium, digest_key, latest_ms)
    shown = _remembered(raw, medium, digest_key)
    return shown if shown.newest_ms <= latest_ms else _read(raw, medium, digest_key, latest_ms)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _remembered(raw: bytes, medium: Media | None, digest_key: bytes) -> ShownParticipant:
    return _read(raw, medium, digest_key, times.LATEST_MS)


def _read(raw: bytes, medium: Media | None, digest_key: bytes, latest_ms: int) -> ShownParticipant:
    reading = _Reading(latest_ms, digest_key)
    return _nested(_NESTED.decode(raw), reading) if medium is None else _flat(_FLAT.decode(raw), medium, reading)


def _nested(shown: Participant, reading: _Reading) -> ShownParticipant:
    showings: list[tuple[Media, tuple[Showing, ...]]] = []
    lists_communications = False
    if not shown.id:
        reading.notes.append("participant_without_id")
    for array, media in _ARRAYS:
        communications = getattr(shown, array)
        if communications is None:
            continue
        lists_communications = True
        if shown.id:
            read = [_of_nested(each, reading) for each in communications if each is not None]
            showings.append((media, tuple([showing for showing in read if showing is not None])))
    ids = (shown.user_id, shown.queue_id, shown.team_id, shown.external_contact_id)
    return _participant(shown, ids, tuple(showings), reading, lists_communications=lists_communications)


def _flat(shown: FlatParticipant, medium: Media, reading: _Reading) -> ShownParticipant:
    showing = None
    if not shown.id:
        reading.notes.append("participant_without_id")
    else:
        showing = _of_flat(shown, medium, reading)
    ids = (_id(shown.user), _id(shown.queue), _id(shown.team), _id(shown.external_contact))
    showings = () if showing is None else ((medium, (showing,)),)
    return _participant(shown, ids, showings, reading, lists_communications=False)


def _participant(
    shown: Participant | FlatParticipant,
    ids: tuple[str | None, str | None, str | None, str | None],
    showings: tuple[tuple[Media, tuple[Showing, ...]], ...],
    reading: _Reading,
    *,
    lists_communications: bool,
) -> ShownParticipant:
    details = ParticipantDetails(_folded(shown.purpose), *ids, shown.wrapup_required)
    notes = tuple(reading.notes)
    return ShownParticipant(shown.id or None, details, showings, notes, reading.newest_ms, lists_communications)


def _id(reference: Reference | None) -> str | None:
    return None if reference is None else reference.id


def _of_nested(shown: Communication, reading: _Reading) -> Showing | None:
    """A communication of the nested shape; None, and a note, if it has no id or no state."""
    if not shown.id:
        reading.notes.append("communication_without_id")
        return None
    if not shown.state:
        reading.notes.append("communication_without_state")
        return None
    details = CommunicationDetails(_folded(shown.initial_state), _disconnect_type(shown, reading), shown.provider)
    provider_time: WireTime = None
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
    else:
        _add_handling(details, shown)
    work_start = work_end = None
    if work is not None:
        details.after_call_work_state = _folded(work.state)
        work_start, work_end = reading.time(work.start_time), reading.time(work.end_time)
    shown_times = (
        reading.time(provider_time),
        reading.time(shown.connected_time),
        reading.time(shown.disconnected_time),
        reading.time(shown.park_time if isinstance(shown, Email | Message) else None),
    )
    return _showing(shown.id, None, shown.state, shown_times, (work_start, work_end), details, reading)


def _of_flat(shown: FlatParticipant, medium: Media, reading: _Reading) -> Showing | None:
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
    reading: _Reading,
) -> Showing:
    _, connected, disconnected, parked = shown_times
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
    latest = max([time for time in (*shown_times, *work_times) if time is not None], default=None)
    sightings = [_entered(state, state_rank, cycle, shown_times)]
    if state_rank >= LIVE:
        if connected is not None:
            sightings.append(Sighting(LIVE, "", CONNECTED, "state", times.text(connected)))
        if parked is not None:
            park_text = times.text(parked)
            sightings.append(Sighting(LIVE, park_text, PARKED, "state", park_text))
        if state_rank == TERMINATED and disconnected is not None:
            sightings.append(Sighting(DISCONNECTED, "", "disconnected", "state", times.text(disconnected)))
    own_time = "" if latest is None else times.text(latest)
    return Showing(communication_id, session_digest, state_rank, cycle, own_time, details, tuple(sightings))


def _entered(
    state: str, state_rank: int, cycle: str, shown_times: tuple[int | None, int | None, int | None, int | None]
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
    return Sighting(state_rank, cycle, state, "snapshot", "")


def _folded(value: str | None) -> str | None:
    return None if value is None else folded(value)


def _disconnect_type(shown: Communication | FlatParticipant, reading: _Reading) -> str | None:
    if shown.disconnect_type is None:
        return None
    disconnect_type = folded(shown.disconnect_type)
    if disconnect_type not in DISCONNECT_TYPES:
        reading.notes.append("unknown_disconnect_type")
    return disconnect_type


def _add_handling(details: CommunicationDetails, shown: Communication) -> None:
    """What single media show of how an agent handles them."""
    if isinstance(shown, Call | Callback | Email | Message):
        details.direction = _folded(shown.direction)
        details.held = shown.held
    elif isinstance(shown, Chat | SocialExpression):
        details.held = shown.held
    if isinstance(shown, Call):
        details.muted = shown.muted
    elif isinstance(shown, Message):
        details.message_type = _folded(shown.type)


def _add_wrapup(details: CommunicationDetails, wrapup: Wrapup | None) -> None:
    if wrapup is None:
        return
    details.wrapup_code = wrapup.code
    duration = wrapup.duration_seconds
    if duration is not None and -_DURATION_MAX_S <= duration <= _DURATION_MAX_S:
        details.wrapup_duration_seconds = duration


def _add_cobrowse(details: CommunicationDetails, shown: CobrowseSession | FlatParticipant, reading: _Reading) -> None:
    details.cobrowse_session_digest = reading.digest(shown.cobrowse_session_id)
    details.cobrowse_role = _folded(shown.cobrowse_role)
    if shown.controlling is not None:
        details.controlling = sorted({controlled for controlled in shown.controlling if controlled is not None})
    if shown.viewer_url:
        details.viewable = True
