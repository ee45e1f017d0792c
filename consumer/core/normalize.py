"""Normalize one participant of a record with its communications, in whichever shape it came.

Here wire values become the values that are kept: enumerations are folded, times are read and judged, secrets are
replaced by digests, and personal data is left behind.

A snapshot repeats most participants of the one before it byte for byte, so results are cached by those bytes. Two
things depend on the record instead: the snapshot time, which is no part of a result, and which times lie too far in
the future, which is checked each time a cached result is used.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Raw, Struct

from consumer.core import timestamps
from consumer.core.details import (
    CONTROLLED_MAX,
    Reading,
    read_communication,
    read_flat_communication,
    read_flat_participant,
    read_participant,
)
from consumer.core.envelope import NO_VALUES, NULL
from consumer.core.event_time import EventTimes, TimeReader, observe
from consumer.core.lifecycle import DISCONNECT_TYPES, DISCONNECTED, LIVE, RANKS, fold_case
from consumer.core.notification_topics import NESTED_ARRAYS
from consumer.core.reasons import Anomaly
from consumer.core.updates import CommunicationUpdate, ParticipantUpdate
from schemas.inbound import (
    CobrowseSession,
    Communication,
    Email,
    FlatParticipant,
    InternalMessage,
    Message,
    Participant,
    RoutedCommunication,
    WireTime,
)
from schemas.state import CommunicationDetails, Media, ParticipantDetails, Version

_CACHED_BYTES_MAX = 4_096
_CACHED_MAX = 16_384
_MEDIA: Final = tuple(NESTED_ARRAYS.values())
_get_arrays: Final = attrgetter(*NESTED_ARRAYS)


class _NestedParticipant(Participant, rename="camel", gc=False):
    """A participant that should be nested, with the state that it shows on itself if it is flat instead."""

    state: Raw = NULL


_NESTED: Final = msgspec.json.Decoder(_NestedParticipant)
_FLAT: Final = msgspec.json.Decoder(FlatParticipant)


def normalize(
    raw: Raw, medium: Media | None, digest_key: bytes, snapshot_time: str, latest_ms: int, listed_max: int
) -> ParticipantUpdate:
    """Normalize the JSON of a participant: of the flat shape with its medium, of the nested one without.

    A time after `latest_ms`, which is not before `snapshot_time`, is implausible. Of a participant whose JSON is long,
    no more than `listed_max` communications are read. Raises msgspec.DecodeError and UnicodeDecodeError.
    """
    if len(raw) > _CACHED_BYTES_MAX:
        return _normalize(raw, medium, digest_key, latest_ms, listed_max)
    update = _normalize_cached(bytes(raw), medium, digest_key)
    if update.newest <= snapshot_time or timestamps.to_ms(update.newest) <= latest_ms:
        return update
    return _normalize(raw, medium, digest_key, latest_ms, listed_max)


@lru_cache(maxsize=_CACHED_MAX)
def _normalize_cached(raw: bytes, medium: Media | None, digest_key: bytes) -> ParticipantUpdate:
    return _normalize(raw, medium, digest_key, timestamps.LATEST_MS, _CACHED_BYTES_MAX)


def _normalize(
    raw: bytes | Raw, medium: Media | None, digest_key: bytes, latest_ms: int, listed_max: int
) -> ParticipantUpdate:
    times = TimeReader(timestamps.to_text(min(latest_ms, timestamps.LATEST_MS)))
    normalizer = _Normalizer(times, Reading(times, digest_key), listed_max)
    if medium is None:
        return normalizer.normalize_nested(_NESTED.decode(raw))
    return normalizer.normalize_flat(_FLAT.decode(raw), medium)


class _Normalizer(Struct, gc=False):
    """Normalizes one participant, counts what it lists, and collects anomalies."""

    times: TimeReader
    reading: Reading
    listed_max: int
    listed: int = 0
    anomalies: list[Anomaly] = []

    def normalize_nested(self, participant: _NestedParticipant) -> ParticipantUpdate:
        updates: list[CommunicationUpdate] = []
        lists_communications = False
        for media, communications in zip(_MEDIA, _get_arrays(participant), strict=True):
            if communications is None:
                continue
            lists_communications = True
            self.listed += len(communications)
            if participant.id and self.listed <= self.listed_max:
                for communication in communications:
                    update = None if communication is None else self._normalize_communication(communication, media)
                    if update is not None:
                        updates.append(update)
        details = read_participant(participant, self.reading) if participant.id else ParticipantDetails()
        return self._update_participant(
            participant.id,
            details,
            updates,
            lists_communications=lists_communications,
            has_state=participant.state not in NO_VALUES,
        )

    def normalize_flat(self, participant: FlatParticipant, medium: Media) -> ParticipantUpdate:
        self.listed = 1
        update = self._normalize_flat_communication(participant, medium) if participant.id else None
        updates = () if update is None else (update,)
        details = read_flat_participant(participant)
        return self._update_participant(participant.id, details, updates, lists_communications=False, has_state=False)

    def _update_participant(
        self,
        participant_id: str | None,
        details: ParticipantDetails,
        updates: Sequence[CommunicationUpdate],
        *,
        lists_communications: bool,
        has_state: bool,
    ) -> ParticipantUpdate:
        if not participant_id:
            self.anomalies.append("participant_without_id")
        self.anomalies += ["implausible_time"] * self.times.implausible
        return ParticipantUpdate(
            participant_id=participant_id or None,
            details=details,
            updates=tuple(updates),
            anomalies=tuple(self.anomalies),
            newest=self.times.newest,
            lists_communications=lists_communications,
            has_state=has_state,
            listed=self.listed,
        )

    def _normalize_communication(self, communication: Communication, media: Media) -> CommunicationUpdate | None:
        """A communication of the nested shape; None, and an anomaly, without an id or a state."""
        if not communication.id:
            self.anomalies.append("communication_without_id")
            return None
        if not communication.state:
            self.anomalies.append("communication_without_state")
            return None
        provider_time: WireTime = None
        alerting_time: WireTime = None
        park_time: WireTime = None
        if type(communication) is CobrowseSession:  # exact, as decoded; isinstance takes five times as long
            provider_time = communication.provider_event_time
            self._count_controlled(communication)
        elif type(communication) is Email or type(communication) is Message:
            park_time = communication.park_time
        if isinstance(communication, RoutedCommunication) or type(communication) is InternalMessage:
            alerting_time = communication.start_alerting_time
        read_time = self.times.read
        details = read_communication(communication, self.reading)
        times = EventTimes(
            read_time(provider_time),
            read_time(alerting_time),
            read_time(communication.connected_time),
            read_time(communication.disconnected_time),
            read_time(park_time),
        )
        return self._update_communication(media, communication.id, communication.state, details, times)

    def _normalize_flat_communication(self, participant: FlatParticipant, medium: Media) -> CommunicationUpdate | None:
        """The communication on a participant of the flat shape; None, and an anomaly, without a state."""
        if not participant.state:
            self.anomalies.append("communication_without_state")
            return None
        provider_time: WireTime = None
        if medium == "cobrowse":
            provider_time = participant.provider_event_time
            self._count_controlled(participant)
        read_time = self.times.read
        details = read_flat_communication(participant, medium, self.reading)
        times = EventTimes(
            read_time(provider_time),
            "",
            read_time(participant.connected_time),
            read_time(participant.end_time),
            read_time(participant.park_time),
        )
        return self._update_communication(medium, None, participant.state, details, times)

    def _count_controlled(self, session: CobrowseSession | FlatParticipant) -> None:
        if session.controlling is not None and len(session.controlling) > CONTROLLED_MAX:
            self.listed += len(session.controlling)

    def _update_communication(
        self,
        media: Media,
        communication_id: str | None,
        wire_state: str,
        details: CommunicationDetails,
        times: EventTimes,
    ) -> CommunicationUpdate:
        state = fold_case(wire_state)
        rank = RANKS.get(state)
        if rank is None:
            self.anomalies.append("unknown_state")
            rank = DISCONNECTED if times.disconnected else LIVE
        if details.disconnect_type is not None and details.disconnect_type not in DISCONNECT_TYPES:
            self.anomalies.append("unknown_disconnect_type")
        cycle = times.parked if rank == LIVE else ""
        own_time = max(
            times.provider,
            times.connected,
            times.disconnected,
            times.parked,
            details.after_call_work_start_time or "",
            details.after_call_work_end_time or "",
        )
        return CommunicationUpdate(
            media=media,
            communication_id=communication_id,
            session_digest=details.cobrowse_session_digest if communication_id is None else None,
            version=Version(rank, cycle, own_time),
            details=details,
            observations=observe(state, rank, cycle, times),
        )
