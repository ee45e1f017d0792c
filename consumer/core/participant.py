"""Merge what one record shows of a participant into what is known of it.

1. A communication's `version` omits its snapshot time exactly where that is its participant's. So a participant that
   is repeated unchanged costs one new object, however many communications it has.
2. Derived fields are updated together with what they derive from: `state`, `state_time`, `time_class`, `began`, `live`,
   `standing` and `joined_to` with the timelines, `details` of a communication that another joined with the details and
   versions of both.
3. Communications are sorted. No argument is changed.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from consumer.core import lww
from consumer.core.matching import group_joined, match_flat, own_details
from consumer.core.reasons import Anomaly
from consumer.core.refold import Change, refold
from consumer.core.timeline import merge
from consumer.core.updates import CommunicationUpdate, ParticipantUpdate
from schemas.state import (
    CommunicationDetails,
    CommunicationState,
    Media,
    Observation,
    ParticipantState,
    Version,
)


class MergeResult(Struct, frozen=True, gc=False):
    """A participant after an update, and what the update changed."""

    participant: ParticipantState
    """The same object if nothing changed."""
    changes: Sequence[Change] = ()
    anomalies: Sequence[Anomaly] = ()
    is_refolded: bool = False
    """Whether a timeline was folded again, so that the state of a communication may have changed."""
    supersedes_all: bool = False
    """Whether every value of the update is now the current one."""


class ParticipantMerge:
    """One participant while one update is merged into it."""

    def __init__(self, before: ParticipantState, snapshot_time: str, cycles_max: int) -> None:
        self._before = before
        self._time = snapshot_time
        self._newest = max(snapshot_time, before.snapshot_time)
        self._cycles_max = cycles_max
        self._communications = before.communications.copy()
        self._indices = {identity(known): index for index, known in enumerate(before.communications)}
        self._flat_media = {known.media for known in before.communications if known.communication_id is None}
        """Media with a communication of the flat shape, which may join a nested one."""
        self._sessions: dict[int, set[str | None]] = {}
        """By index of a communication: co-browse sessions that may be new to it, and the one that it had before."""
        self._current: set[int] = set()
        """Indices of the communications whose stored version refers to `_newest` already."""
        self._supersedes_all = snapshot_time > before.snapshot_time

    def apply(self, update: ParticipantUpdate) -> MergeResult:
        """Merge the update. To be called once."""
        before = self._before
        merged = lww.merge(before.details, before.snapshot_time, before.detail_times, update.details, self._time)
        details, snapshot_time, detail_times = merged or (before.details, before.snapshot_time, before.detail_times)
        changed = merged is not None
        to_refold: dict[Media, None] = {}  # a dict keeps the order, a set does not
        to_combine: dict[Media, None] = {}
        observations = _group_observations(update.updates) if len(update.updates) > 1 else None
        for communication in update.updates:
            differs, has_new_timeline = self._merge_communication(
                communication,
                communication.observations if observations is None else observations.pop(identity(communication), ()),
            )
            changed = changed or differs
            if differs and communication.media in self._flat_media:
                to_combine[communication.media] = None
            if has_new_timeline:
                to_refold[communication.media] = None
        if self._sessions and self._keep_sessions():
            changed = True
            to_refold["cobrowse"] = None
            to_combine.update(dict.fromkeys(self._flat_media & {"cobrowse"}))
        if not changed:
            return MergeResult(before)
        if self._newest > before.snapshot_time:
            self._complete_versions()
        for media in to_combine:
            self._combine_details(media)
        changes: list[Change] = []
        anomalies: list[Anomaly] = []
        for media in to_refold:
            refolded = refold(media, before, self._communications, details, self._cycles_max)
            self._communications = refolded.communications
            changes += refolded.changes
            anomalies += refolded.anomalies
        if len(self._communications) > len(before.communications):
            self._communications.sort(key=_sort_key)
        return MergeResult(
            ParticipantState(before.participant_id, snapshot_time, details, self._communications, detail_times),
            changes,
            anomalies,
            bool(to_refold),
            self._supersedes_all and len(self._current) == len(update.updates),
        )

    def _merge_communication(
        self, update: CommunicationUpdate, observations: Sequence[Observation]
    ) -> tuple[bool, bool]:
        """Merge one communication; whether it changed, and whether its timeline did."""
        key = identity(update)
        index = self._indices.get(key)
        if index is None:
            self._indices[key] = len(self._communications)
            self._add(update, observations)
            return True, True
        known = self._communications[index]
        timeline = merge(known.timeline, observations, self._time, self._cycles_max)
        if self._repeats(known, update):
            self._current.add(index)
            if timeline is known.timeline:
                return self._time > self._before.snapshot_time, False
            self._communications[index] = replace(known, timeline=timeline)
            return True, True
        version, own = self._complete_version(index, known), own_details(known)
        update_version = replace(update.version, snapshot_time=self._time)
        merged = lww.merge(own, version, known.detail_versions, update.details, update_version)
        session = update.details.cobrowse_session_digest
        if session is not None and session != own.cobrowse_session_digest:
            self._sessions.setdefault(index, {own.cobrowse_session_digest}).add(session)
        if merged is None and timeline is known.timeline:
            return False, False
        details, newest, older = merged or (own, version, known.detail_versions)
        self._supersedes_all = self._supersedes_all and newest == update_version
        self._current.add(index)
        self._communications[index] = replace(
            known,
            timeline=timeline,
            details=details,
            version=replace(newest, snapshot_time=self._omit_newest(newest.snapshot_time)),
            detail_versions=older,
            own_details=None,
        )
        return True, timeline is not known.timeline

    def _add(self, update: CommunicationUpdate, observations: Sequence[Observation]) -> None:
        """Add a communication that was not known."""
        self._current.add(len(self._communications))
        if update.communication_id is None:
            self._flat_media.add(update.media)
        self._communications.append(
            CommunicationState(
                media=update.media,
                details=update.details,
                version=replace(update.version, snapshot_time=self._omit_newest(self._time)),
                timeline=merge([], observations, self._time, self._cycles_max),
                communication_id=update.communication_id,
                session_digest=update.session_digest,
            )
        )

    def _repeats(self, known: CommunicationState, update: CommunicationUpdate) -> bool:
        """Whether the participant's newest snapshot shows a communication exactly as it is known."""
        return (
            self._time == self._newest
            and known.version == update.version
            and own_details(known) == update.details
            and not known.detail_versions
        )

    def _keep_sessions(self) -> bool:
        """Keep all co-browse sessions that communications showed; whether one is new to its communication."""
        is_any_new = False
        for index, sessions in self._sessions.items():
            known = self._communications[index]
            current = own_details(known).cobrowse_session_digest
            others = sorted(
                digest
                for digest in sessions.union(known.other_session_digests)
                if digest is not None and digest != current
            )
            if others != known.other_session_digests:
                self._communications[index] = replace(known, other_session_digests=others)
                is_any_new = True
            is_any_new = is_any_new or None in sessions
        return is_any_new

    def _omit_newest(self, snapshot_time: str) -> str:
        """A version's snapshot time as it is stored: empty where it is the participant's."""
        return "" if snapshot_time == self._newest else snapshot_time

    def _complete_version(self, index: int, known: CommunicationState) -> Version:
        """The version of a communication with its snapshot time."""
        if known.version.snapshot_time:
            return known.version
        return replace(
            known.version, snapshot_time=self._newest if index in self._current else self._before.snapshot_time
        )

    def _complete_versions(self) -> None:
        """Write the participant's previous snapshot time into communications that this snapshot does not show."""
        for index, known in enumerate(self._communications):
            if index not in self._current and not known.version.snapshot_time:
                self._communications[index] = replace(known, version=self._complete_version(index, known))

    def _combine_details(self, media: Media) -> None:
        """Update the details that count in one medium: a communication's own, and those of what joined it."""
        stored = {index: known for index, known in enumerate(self._communications) if known.media == media}
        joined_to = group_joined(list(stored.values()), match_flat(list(stored.values())))
        for index, known in stored.items():
            own = details = own_details(known)
            if joined := joined_to.get(known.communication_id):
                details = lww.combine([self._to_register(part) for part in (known, *joined)])
            if details != known.details or (details == own) != (known.own_details is None):
                self._communications[index] = replace(
                    known, details=details, own_details=None if details == own else own
                )

    def _to_register(self, known: CommunicationState) -> tuple[CommunicationDetails, Version, dict[str, Version]]:
        """A communication's own details with its whole version, after `_complete_versions`."""
        version = known.version if known.version.snapshot_time else replace(known.version, snapshot_time=self._newest)
        return own_details(known), version, known.detail_versions


_Identity = tuple[Media, str | None, str | None]


def identity(communication: CommunicationState | CommunicationUpdate) -> _Identity:
    """What distinguishes a communication from the others of its participant."""
    return communication.media, communication.communication_id, communication.session_digest


def _group_observations(updates: Sequence[CommunicationUpdate]) -> dict[_Identity, list[Observation]] | None:
    """The observations of each communication; None if none is listed twice."""
    if len({identity(update) for update in updates}) == len(updates):
        return None
    observations: dict[_Identity, list[Observation]] = {}
    for update in updates:
        observations.setdefault(identity(update), []).extend(update.observations)
    return observations


def _sort_key(communication: CommunicationState) -> tuple[Media, str, str]:
    return communication.media, communication.communication_id or "", communication.session_digest or ""
