"""What one record shows of one participant and its communications, whichever shape it came in.

This is where wire values become the values that are kept: enumerations folded, times read and judged, secrets
replaced by digests, personal data left behind.

A snapshot repeats most participants of the one before it byte for byte, so what was read of a participant is
remembered by its bytes. Only two things in a reading depend on the record that carries it: the snapshot time, which
is left out of it, and which times lie too far in the future, which is checked whenever a reading is used again.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import Struct

from consumer.core import registers, times
from consumer.core.lifecycle import (
    CONNECTED,
    DISCONNECT_TYPES,
    DISCONNECTED,
    LIVE,
    PARKED,
    RANKS,
    TERMINATED,
    folded,
)
from consumer.core.topics import NESTED_ARRAYS
from schemas.inbound import (
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
from schemas.state import CommunicationDetails, Media, Observation, ParticipantDetails, TimeClass, Version

CONTROL_CHANGE_MS = 2_000
"""A provider event this much later than the state's own time was another event, such as a change of control."""

CONTROLLED_MAX = 2_000
"""A list of controlled participants that is longer counts as so many communications."""
_DURATION_MAX_S = 2**53  # beyond it a JSON number is not exact
_REMEMBERED_BYTES_MAX = 4_096
_REMEMBERED_MAX = 16_384
_MEDIA: Final = tuple(NESTED_ARRAYS.values())
_arrays: Final = attrgetter(*NESTED_ARRAYS)
_NESTED: Final = msgspec.json.Decoder(Participant)
_FLAT: Final = msgspec.json.Decoder(FlatParticipant)


class Showing(Struct, frozen=True, gc=False):
    """One communication as a record shows it."""

    media: Media
    communication_id: str | None
    session_digest: str | None
    """What tells co-browse sessions of the flat shape apart, which have no id there."""
    version: Version
    """How new it is, but for the snapshot time, which is that of the record. `own_time` is the latest time shown."""
    details: CommunicationDetails
    sightings: tuple[Observation, ...]
    """What it says of the timeline; an empty time stands for the snapshot's."""


class ShownParticipant(Struct, frozen=True, gc=False):
    """One participant as a record shows it."""

    participant_id: str | None
    details: ParticipantDetails
    showings: tuple[Showing, ...]
    """Each medium's together."""
    notes: tuple[str, ...]
    """Oddities from a closed set, once per occurrence, to be counted."""
    newest: str
    """The newest of the plausible times shown, empty if there is none."""
    lists_communications: bool
    """Whether an array of communications was there, which only the nested shape has."""
    listed: int
    """How many communications it lists, usable or not, with those that they control where these are too many; if it is
    more than was asked for, they were not read."""


class _Reading(Struct, gc=False):
    """How the times and ids of one participant are read, and what was noticed on the way."""

    latest: str
    digest_key: bytes
    listed_max: int
    listed: int = 0
    notes: list[str] = []

    def time(self, wire: WireTime) -> str:
        """A plausible time as published, else empty: one bad clock never stops or reorders anything else."""
        if wire is None:
            return ""
        time = times.published(wire)
        if time is None or time > self.latest:
            if wire != "":
                self.notes.append("implausible_time")
            return ""
        return time


class _Times(Struct, frozen=True, gc=False):
    """The plausible times that a communication shows, as published; empty where it shows none."""

    provider: str
    connected: str
    disconnected: str
    parked: str


def shown_participant(
    raw: bytes, medium: Media | None, digest_key: bytes, snapshot_time: str, latest_ms: int, listed_max: int
) -> ShownParticipant:
    """A participant from its JSON: of the flat shape with its medium, else of the nested one.

    Longer lists than `listed_max` in all are not gone through where the JSON is long as well. A time after `latest_ms`,
    which is not before `snapshot_time`, is implausible. Raises msgspec.DecodeError and UnicodeDecodeError.
    """
    if len(raw) > _REMEMBERED_BYTES_MAX:
        return _read(raw, medium, digest_key, latest_ms, listed_max)
    shown = _remembered(raw, medium, digest_key)
    if shown.newest <= snapshot_time or times.milliseconds(shown.newest) <= latest_ms:
        return shown
    return _read(raw, medium, digest_key, latest_ms, listed_max)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _remembered(raw: bytes, medium: Media | None, digest_key: bytes) -> ShownParticipant:
    return _read(raw, medium, digest_key, times.LATEST_MS, _REMEMBERED_BYTES_MAX)


def _read(raw: bytes, medium: Media | None, digest_key: bytes, latest_ms: int, listed_max: int) -> ShownParticipant:
    reading = _Reading(times.text(min(latest_ms, times.LATEST_MS)), digest_key, listed_max)
    return _nested(_NESTED.decode(raw), reading) if medium is None else _flat(_FLAT.decode(raw), medium, reading)


def _nested(shown: Participant, reading: _Reading) -> ShownParticipant:
    showings: list[Showing] = []
    lists_communications = False
    if not shown.id:
        reading.notes.append("participant_without_id")
    for media, communications in zip(_MEDIA, _arrays(shown), strict=True):
        if communications is None:
            continue
        lists_communications = True
        reading.listed += len(communications)
        if shown.id and reading.listed <= reading.listed_max:
            for each in communications:
                showing = None if each is None else _of_nested(each, media, reading)
                if showing is not None:
                    showings.append(showing)
    ids = (shown.user_id or None, shown.queue_id or None, shown.team_id or None, shown.external_contact_id or None)
    return _participant(shown, ids, tuple(showings), reading, lists_communications=lists_communications)


def _flat(shown: FlatParticipant, medium: Media, reading: _Reading) -> ShownParticipant:
    showing = None
    reading.listed = 1
    if not shown.id:
        reading.notes.append("participant_without_id")
    else:
        showing = _of_flat(shown, medium, reading)
    ids = (_id(shown.user), _id(shown.queue), _id(shown.team), _id(shown.external_contact))
    return _participant(shown, ids, () if showing is None else (showing,), reading, lists_communications=False)


def _participant(
    shown: Participant | FlatParticipant,
    ids: tuple[str | None, str | None, str | None, str | None],
    showings: tuple[Showing, ...],
    reading: _Reading,
    *,
    lists_communications: bool,
) -> ShownParticipant:
    details = ParticipantDetails(_folded(shown.purpose), *ids, shown.wrapup_required)
    newest = max([showing.version.own_time for showing in showings], default="")
    notes = tuple(reading.notes)
    return ShownParticipant(shown.id or None, details, showings, notes, newest, lists_communications, reading.listed)


def united(several: Sequence[ShownParticipant]) -> ShownParticipant:
    """What one record shows of a participant that it lists several times."""
    first, *others = several
    details = first.details
    for each in others:  # shown at the same time, the greater value of two wins
        combined = registers.merged(details, "", {}, each.details, "")
        details = details if combined is None else combined[0]
    return ShownParticipant(
        first.participant_id,
        details,
        tuple(chain.from_iterable([each.showings for each in several])),
        tuple(chain.from_iterable([each.notes for each in several])),
        max([each.newest for each in several]),
        any(each.lists_communications for each in several),
        sum([each.listed for each in several]),
    )


def _id(reference: Reference | None) -> str | None:
    return None if reference is None else reference.id or None


def _of_nested(shown: Communication, media: Media, reading: _Reading) -> Showing | None:
    """A communication of the nested shape; None, and a note, if it has no id or no state."""
    if not shown.id:
        reading.notes.append("communication_without_id")
        return None
    if not shown.state:
        reading.notes.append("communication_without_state")
        return None
    own, provider_time, park_time = _of_medium(shown, reading)
    if isinstance(shown, RoutedCommunication):
        own["peer_id"] = shown.peer_id or None
        own["after_call_work_required"] = shown.after_call_work_required
        work = shown.after_call_work
        if work is not None:
            own["after_call_work_state"] = _folded(work.state)
            own["after_call_work_start_time"] = reading.time(work.start_time) or None
            own["after_call_work_end_time"] = reading.time(work.end_time) or None
        if shown.wrapup is not None:
            _add_wrapup(own, shown.wrapup)
    details = CommunicationDetails(
        _folded(shown.initial_state), _disconnect_type(shown, reading), shown.provider or None, **own
    )
    shown_times = _Times(
        reading.time(provider_time),
        reading.time(shown.connected_time),
        reading.time(shown.disconnected_time),
        reading.time(park_time),
    )
    return _showing(media, shown.id, None, shown.state, shown_times, details, reading)


def _of_medium(shown: Communication, reading: _Reading) -> tuple[dict[str, Any], WireTime, WireTime]:
    """What only single media show: details by name, the provider's event time, the park time."""
    match shown:
        case CobrowseSession():
            own = _cobrowse(shown, reading)
            own["room_digest"] = _digest(shown.room_id, reading.digest_key)
            return own, shown.provider_event_time, None
        case Call():
            return {"direction": _folded(shown.direction), "held": shown.held, "muted": shown.muted}, None, None
        case Message():
            own = {"direction": _folded(shown.direction), "held": shown.held, "message_type": _folded(shown.type)}
            return own, None, shown.park_time
        case Email():
            return {"direction": _folded(shown.direction), "held": shown.held}, None, shown.park_time
        case Callback():
            return {"direction": _folded(shown.direction), "held": shown.held}, None, None
        case Chat() | SocialExpression():
            return {"held": shown.held}, None, None
    return {}, None, None


def _of_flat(shown: FlatParticipant, medium: Media, reading: _Reading) -> Showing | None:
    """The communication that stands on a participant of the flat shape; None, and a note, if it has no state."""
    if not shown.state:
        reading.notes.append("communication_without_state")
        return None
    provider_time: WireTime = None
    own: dict[str, Any] = {}
    if medium == "cobrowse":
        own = _cobrowse(shown, reading)
        provider_time = shown.provider_event_time
    elif medium == "call":
        own["muted"] = shown.muted
    elif medium == "message":
        own["message_type"] = _folded(shown.type)
    if shown.wrapup is not None:
        _add_wrapup(own, shown.wrapup)
    details = CommunicationDetails(
        _folded(shown.initial_state),
        _disconnect_type(shown, reading),
        shown.provider or None,
        _folded(shown.direction),
        shown.held,
        peer_id=shown.peer or None,
        after_call_work_start_time=reading.time(shown.start_acw_time) or None,
        after_call_work_end_time=reading.time(shown.end_acw_time) or None,
        **own,
    )
    shown_times = _Times(
        reading.time(provider_time),
        reading.time(shown.connected_time),
        reading.time(shown.end_time),
        reading.time(shown.park_time),
    )
    return _showing(medium, None, details.cobrowse_session_digest, shown.state, shown_times, details, reading)


def _showing(
    media: Media,
    communication_id: str | None,
    session_digest: str | None,
    wire_state: str,
    shown: _Times,
    details: CommunicationDetails,
    reading: _Reading,
) -> Showing:
    state = folded(wire_state)
    state_rank = RANKS.get(state)
    if state_rank is None:
        reading.notes.append("unknown_state")
        state_rank = DISCONNECTED if shown.disconnected else LIVE
    cycle = shown.parked if state_rank == LIVE else ""
    own_time = max(
        shown.provider,
        shown.connected,
        shown.disconnected,
        shown.parked,
        details.after_call_work_start_time or "",
        details.after_call_work_end_time or "",
    )
    time, time_class = _entered(state, state_rank, shown)
    sightings = [Observation(state, state_rank, time, time_class, cycle)]
    if state_rank >= LIVE:
        if shown.connected and (cycle or state != CONNECTED):
            sightings.append(Observation(CONNECTED, LIVE, shown.connected, "state"))
        if shown.parked:
            sightings.append(Observation(PARKED, LIVE, shown.parked, "state", shown.parked))
        if state_rank == TERMINATED and shown.disconnected:
            sightings.append(Observation("disconnected", DISCONNECTED, shown.disconnected, "state"))
    version = Version(state_rank, cycle, own_time)
    return Showing(media, communication_id, session_digest, version, details, tuple(sightings))


def _entered(state: str, state_rank: int, shown: _Times) -> tuple[str, TimeClass]:
    """When the state shown was entered: the provider's event time, the state's own time, or at most the snapshot's."""
    own = ""
    if state_rank >= DISCONNECTED:
        own = shown.disconnected
    elif state == PARKED:
        own = shown.parked
    elif state == CONNECTED and shown.parked <= shown.connected:
        own = shown.connected
    if shown.provider and not (own and _control_changed(shown.provider, own)):
        return shown.provider, "provider"
    return (own, "state") if own else ("", "snapshot")


def _control_changed(provider: str, own: str) -> bool:
    return provider > own and times.milliseconds(provider) - times.milliseconds(own) > CONTROL_CHANGE_MS


def _folded(value: str | None) -> str | None:
    return folded(value) if value else None


def _disconnect_type(shown: Communication | FlatParticipant, reading: _Reading) -> str | None:
    if not shown.disconnect_type:
        return None
    disconnect_type = folded(shown.disconnect_type)
    if disconnect_type not in DISCONNECT_TYPES:
        reading.notes.append("unknown_disconnect_type")
    return disconnect_type


def _digest(secret: str | None, key: bytes) -> str | None:
    """What is kept of a capability-like id."""
    return hashlib.blake2b(secret.encode(), digest_size=16, key=key).hexdigest() if secret else None


def _add_wrapup(details: dict[str, Any], wrapup: Wrapup) -> None:
    details["wrapup_code"] = wrapup.code or None
    duration = wrapup.duration_seconds
    if duration is not None and -_DURATION_MAX_S <= duration <= _DURATION_MAX_S:
        details["wrapup_duration_seconds"] = int(duration)


def _cobrowse(shown: CobrowseSession | FlatParticipant, reading: _Reading) -> dict[str, Any]:
    """The details that only a co-browse session has."""
    details: dict[str, Any] = {
        "cobrowse_session_digest": _digest(shown.cobrowse_session_id, reading.digest_key),
        "cobrowse_role": _folded(shown.cobrowse_role),
    }
    if shown.controlling is not None:
        if len(shown.controlling) > CONTROLLED_MAX:
            reading.listed += len(shown.controlling)
            return details
        details["controlling"] = sorted({controlled for controlled in shown.controlling if controlled})
    if shown.viewer_url:
        details["viewable"] = True
    return details
