"""One participant while a snapshot is applied to it.

1. The `version` of a communication lacks its snapshot time exactly where that is its participant's. So a participant
   that is shown again as it was costs one new value, whatever it has of communications.
2. What follows from the timelines is brought up to date with them: `state`, `state_time`, `time_class`, `began`,
   `live`, `standing` and `joined_to` of a communication. What follows from the details is brought up to date with
   any detail or version: `details` of a communication that another joined.
3. Communications are sorted. Nothing that was handed in is changed.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from consumer.core import registers
from consumer.core.belonging import joined, own_details, places, timelines
from consumer.core.lifecycle import LIVE
from consumer.core.showing import Showing, ShownParticipant
from consumer.core.timeline import Entry, fold, merged
from schemas.state import (
    CommunicationDetails,
    CommunicationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
    Version,
)


class Change(Struct, frozen=True, gc=False):
    """The folded timeline of one communication before and after a snapshot; they differ."""

    participant_id: str
    media: Media
    communication_id: str | None
    before: list[Entry]
    after: list[Entry]
    participant: ParticipantDetails
    disconnect_type: str | None


class Update:
    """One participant while a snapshot is applied to it."""

    def __init__(
        self, before: ParticipantState, time: str, cycles_max: int, changes: list[Change], notes: list[str]
    ) -> None:
        self.refolded = False
        """Whether what its communications count as may have changed."""
        self.prevails = False
        """Whether all that was shown is newer than anything else that is known of it."""
        self._before = before
        self._time = time
        self._newest = max(time, before.snapshot_time)
        self._communications = before.communications.copy()
        self._indices = {identity(each): index for index, each in enumerate(before.communications)}
        self._flat_media = {each.media for each in before.communications if each.communication_id is None}
        """Media in which one communication may join another."""
        self._sessions: dict[int, set[str | None]] = {}
        """By index of a communication, co-browse sessions that may be new to it, and what it showed before them."""
        self._current: set[int] = set()
        """Indices of the communications whose version has been brought up to date."""
        self._cycles_max = cycles_max
        self._changes = changes
        self._notes = notes

    def apply(self, shown: ShownParticipant) -> ParticipantState:
        """The participant afterwards; the same object if nothing changed."""
        before = self._before
        merged_details = registers.merged(
            before.details, before.snapshot_time, before.detail_times, shown.details, self._time
        )
        details, snapshot_time, detail_times = merged_details or (
            before.details, before.snapshot_time, before.detail_times,
        )  # fmt: skip
        refolding: dict[Media, None] = {}
        combining: dict[Media, None] = {}
        changed = merged_details is not None
        self.prevails = self._time > before.snapshot_time
        sightings = _sightings(shown.showings) if len(shown.showings) > 1 else None
        for showing in shown.showings:
            changed_here, refold = self._take_in(
                showing, showing.sightings if sightings is None else sightings.pop(identity(showing), ())
            )
            changed = changed or changed_here
            if changed_here and showing.media in self._flat_media:
                combining[showing.media] = None
            if refold:
                refolding[showing.media] = None
        if self._keep_sessions():
            changed = True
            refolding["cobrowse"] = None
            combining.update(dict.fromkeys(self._flat_media & {"cobrowse"}))
        if not changed:
            return before
        self.prevails = self.prevails and len(self._current) == len(shown.showings)
        if self._newest > before.snapshot_time:
            self._keep_versions()
        for each in combining:
            self._combine_details(each)
        for each in refolding:
            self.refolded = True
            self._refold(each, details)
        if len(self._communications) > len(before.communications):
            self._communications.sort(key=_sort_key)
        return ParticipantState(before.participant_id, snapshot_time, details, self._communications, detail_times)

    def _take_in(self, showing: Showing, sightings: Sequence[Observation]) -> tuple[bool, bool]:
        """Take in a showing and sightings; whether that says anything new, and whether it calls for a new fold."""
        index = self._indices.get(identity(showing))
        if index is None:
            self._indices[identity(showing)] = len(self._communications)
            version = replace(showing.version, snapshot_time=self._stored(self._time))
            timeline = merged([], sightings, self._time, self._cycles_max)
            self._current.add(len(self._communications))
            if showing.communication_id is None:
                self._flat_media.add(showing.media)
            self._communications.append(
                CommunicationState(
                    showing.media, showing.details, version, timeline, showing.communication_id, showing.session_digest
                )
            )
            return True, True
        kept = self._communications[index]
        timeline = merged(kept.timeline, sightings, self._time, self._cycles_max)
        if self._says_the_same(kept, showing):
            self._current.add(index)
            if timeline is kept.timeline:
                return self._time > self._before.snapshot_time, False
            self._communications[index] = replace(kept, timeline=timeline)
            return True, True
        version, own = self._version(index, kept), own_details(kept)
        shown_version = replace(showing.version, snapshot_time=self._time)
        after = registers.merged(own, version, kept.detail_versions, showing.details, shown_version)
        session = showing.details.cobrowse_session_digest
        if session is not None and session != own.cobrowse_session_digest:
            self._sessions.setdefault(index, {own.cobrowse_session_digest}).add(session)
        if after is None and timeline is kept.timeline:
            return False, False
        details, newest, older = after or (own, version, kept.detail_versions)
        self.prevails = self.prevails and newest == shown_version
        self._current.add(index)
        self._communications[index] = replace(
            kept,
            timeline=timeline,
            details=details,
            version=replace(newest, snapshot_time=self._stored(newest.snapshot_time)),
            detail_versions=older,
            own_details=None,
        )
        return True, timeline is not kept.timeline

    def _keep_sessions(self) -> bool:
        """Keep the co-browse sessions that communications showed; whether one is new to its communication."""
        found_new = False
        for index, sessions in self._sessions.items():
            kept = self._communications[index]
            ever, newest = sessions.union(kept.other_session_digests), own_details(kept).cobrowse_session_digest
            others = sorted(digest for digest in ever if digest is not None and digest != newest)
            if others != kept.other_session_digests:
                self._communications[index] = replace(kept, other_session_digests=others)
                found_new = True
            found_new = found_new or None in sessions
        return found_new

    def _says_the_same(self, kept: CommunicationState, showing: Showing) -> bool:
        """Whether a communication is shown with what it is known with, at the newest snapshot of its participant."""
        return (
            self._time == self._newest
            and kept.version == showing.version
            and own_details(kept) == showing.details
            and not kept.detail_versions
        )

    def _stored(self, snapshot_time: str) -> str:
        return "" if snapshot_time == self._newest else snapshot_time

    def _version(self, index: int, kept: CommunicationState) -> Version:
        """The whole version of a communication."""
        if kept.version.snapshot_time:
            return kept.version
        return replace(
            kept.version, snapshot_time=self._newest if index in self._current else self._before.snapshot_time
        )

    def _keep_versions(self) -> None:
        """Communications that this snapshot does not show keep the time of the participant's last one."""
        for index, each in enumerate(self._communications):
            if index not in self._current and not each.version.snapshot_time:
                self._communications[index] = replace(each, version=self._version(index, each))

    def _combine_details(self, media: Media) -> None:
        """Bring up to date what counts of each communication in one medium: what those show that joined it as well."""
        stored = {index: each for index, each in enumerate(self._communications) if each.media == media}
        joined_to = joined(list(stored.values()), places(list(stored.values())))
        for index, each in stored.items():
            own = details = own_details(each)
            if others := joined_to.get(each.communication_id):
                details = registers.combined([self._register(one) for one in (each, *others)])
            if details != each.details or (details == own) != (each.own_details is None):
                self._communications[index] = replace(
                    each, details=details, own_details=None if details == own else own
                )

    def _register(self, kept: CommunicationState) -> tuple[CommunicationDetails, Version, dict[str, Version]]:
        """What a communication showed itself, with its whole version. Versions have been kept."""
        version = kept.version if kept.version.snapshot_time else replace(kept.version, snapshot_time=self._newest)
        return own_details(kept), version, kept.detail_versions

    def _refold(self, media: Media, participant: ParticipantDetails) -> None:
        """Compare the folds of the communications in one medium, and bring what follows from them up to date."""
        before = [each for each in self._before.communications if each.media == media]
        after = [each for each in self._communications if each.media == media]
        placed = places(after)
        old = timelines(before, places(before) if placed else placed, self._cycles_max)
        new = timelines(after, placed, self._cycles_max)
        folds = {
            counted_as: fold(new.get(counted_as, []))
            for counted_as in (old.keys() | new.keys() if placed else new)
            if old.get(counted_as) != new.get(counted_as)
        }
        disconnect_types = {
            each.communication_id or each.session_digest: each.details.disconnect_type
            for each in (before if placed else ())
            if each.standing in {None, "alone"}
        }
        for index, each in enumerate(self._communications):
            if each.media != media:
                continue
            counted_as = each.communication_id
            if counted_as is None:
                place = placed[each.session_digest]
                counted_as = place.counted_as
                if place.standing == "ambiguous":
                    self._notes.append("ambiguous_communication")
                if place.standing != "alone":
                    self._communications[index] = replace(
                        each,
                        standing=place.standing,
                        joined_to=counted_as,
                        state=None,
                        state_time=None,
                        time_class=None,
                        began=None,
                        live=False,
                    )
                    continue
                each = replace(each, standing="alone", joined_to=None)  # noqa: PLW2901 - the same communication
                self._communications[index] = each
            if folded := folds.get(counted_as):
                last = folded[-1]
                disconnect_types[counted_as] = each.details.disconnect_type
                self._communications[index] = replace(
                    each,
                    state=last.to_state,
                    state_time=last.time,
                    time_class=last.time_class,
                    began=folded[0].time,
                    live=_is_live(new[counted_as]),
                )
        for counted_as in sorted(folds, key=_text):
            entries = fold(old.get(counted_as, []))
            if entries != folds[counted_as]:
                self._changes.append(
                    Change(
                        self._before.participant_id,
                        media,
                        counted_as,
                        entries,
                        folds[counted_as],
                        participant,
                        disconnect_types.get(counted_as),
                    )
                )


_Identity = tuple[Media, str | None, str | None]


def identity(communication: CommunicationState | Showing) -> _Identity:
    """What tells a communication from the participant's others."""
    return communication.media, communication.communication_id, communication.session_digest


def _sightings(showings: Sequence[Showing]) -> dict[_Identity, list[Observation]] | None:
    """What is said of the timeline of each communication; None if none is listed twice."""
    if len({identity(showing) for showing in showings}) == len(showings):
        return None
    sightings: dict[_Identity, list[Observation]] = {}
    for showing in showings:
        sightings.setdefault(identity(showing), []).extend(showing.sightings)
    return sightings


def _sort_key(communication: CommunicationState) -> tuple[Media, str, str]:
    return communication.media, communication.communication_id or "", communication.session_digest or ""


def _text(communication_id: str | None) -> str:
    return communication_id or ""


def _is_live(timeline: list[Observation]) -> bool:
    return bool(timeline) and timeline[-1].rank <= LIVE
