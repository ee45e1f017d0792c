"""What a lane counts between two commits.

It reaches the metrics only when the commit has succeeded, so that a record is counted once however often it was tried.
"""

from collections import Counter
from typing import Final, Literal, get_args

from msgspec import Struct, field

from consumer.core import timestamps
from consumer.core.framing import Framing
from consumer.core.lifecycle import BEFORE, DISCONNECTED, LIVE
from consumer.core.outcomes import Applied, Outcome, Unchanged
from consumer.core.reasons import Anomaly, Disposition, Reason
from consumer.core.record import Record
from consumer.core.refold import Change
from consumer.core.timeline import Entry

DeclinedReason = Literal[
    "envelope",
    "json",
    "topic",
    "time",
    "key",
    "participants",
    "limits",
    "late",
    "state",
    "panic",
]
"""Why the native engine leaves a record to the rules in Python."""
DECLINED_REASONS: Final[tuple[DeclinedReason, ...]] = get_args(DeclinedReason)


class CommitStats(Struct):
    """Counts of one lane since its last commit. Keys are small closed sets or folded to one by the metrics."""

    records: Counter[tuple[Disposition, Reason]] = field(default_factory=Counter)
    """By (disposition, reason); the reason is empty for applied and unchanged."""
    templates: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[Anomaly] = field(default_factory=Counter)
    framings: Counter[Framing] = field(default_factory=Counter)
    """Of records that were used: what was around their values and keys."""
    record_bytes: int = 0
    asserted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Transitions by (media, from, to); `from` is empty for the first state."""
    retracted: Counter[str] = field(default_factory=Counter)
    """Retracted transitions by media."""
    time_classes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Asserted transitions by (media, time class)."""
    disconnects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Communications that ended, by (media, disconnect type); empty if there was none."""
    connect_ms: list[tuple[str, int]] = field(default_factory=list)
    """(media, milliseconds from the first state to the first live one)."""
    duration_ms: list[tuple[str, int]] = field(default_factory=list)
    """(media, milliseconds from the first live state to the end)."""
    ages_ms: list[int] = field(default_factory=list)
    """Now minus the record's timestamp, when it was processed; only of plausible timestamps."""
    behind_ms: list[int] = field(default_factory=list)
    """For records out of order: how far their snapshot lies behind stream time."""
    skew_ms: list[int] = field(default_factory=list)
    """Snapshot time minus the newest event time that the record brought; negative where the event's clock is ahead.

    Only for a conversation's newest snapshot, since an older one may assert again what a later one had shown. Not for a
    snapshot that has no time of its own and takes that of its newest event.
    """
    evicted: int = 0
    declined: Counter[DeclinedReason] = field(default_factory=Counter)
    """Records that the native engine left to the rules in Python. The only field in which engines differ."""

    @property
    def consumed(self) -> int:
        """Records that got a disposition."""
        return self.records.total()

    def add(self, record: Record, outcome: Outcome, stream_ms: int | None, now_ms: int) -> None:
        """Count a record. `stream_ms` is the stream time before it; `now_ms` the wall clock."""
        self.records[outcome.disposition, outcome.reason] += 1
        self.templates[outcome.template] += 1
        self.record_bytes += len(record.value or b"")
        if outcome.anomalies:
            self.anomalies.update(outcome.anomalies)
        if isinstance(outcome, Applied | Unchanged) and outcome.framings:
            self.framings.update(outcome.framings)
        if timestamps.EARLIEST_MS <= record.timestamp_ms <= timestamps.LATEST_MS:
            self.ages_ms.append(now_ms - record.timestamp_ms)
        if stream_ms is not None and outcome.snapshot_ms is not None and outcome.snapshot_ms < stream_ms:
            self.behind_ms.append(stream_ms - outcome.snapshot_ms)
        if isinstance(outcome, Applied) and outcome.transitions:
            self._add_transitions(outcome)
            for change in outcome.changes:
                self._add_change(change)

    def _add_transitions(self, outcome: Applied) -> None:
        newest = ""
        for transition in outcome.transitions:
            if transition.op == "assert":
                self.asserted[transition.media, transition.from_state or "", transition.to_state] += 1
                self.time_classes[transition.media, transition.time_class] += 1
                if transition.time_class != "snapshot":
                    newest = max(newest, transition.event_time)
            else:
                self.retracted[transition.media] += 1
        if newest and "time_of_body" not in outcome.anomalies:
            newest_snapshot_ms = timestamps.to_ms(outcome.stored.state.snapshot_time)
            if outcome.snapshot_ms == newest_snapshot_ms:
                self.skew_ms.append(newest_snapshot_ms - timestamps.to_ms(newest))

    def _add_change(self, change: Change) -> None:
        connected, ended = _first(change.after, LIVE), _first(change.after, DISCONNECTED)
        if connected is not None and _first(change.before, LIVE) is None and change.after[0].rank == BEFORE:
            self.connect_ms.append((change.media, _between(change.after[0], connected)))
        if ended is not None and _first(change.before, DISCONNECTED) is None:
            self.disconnects[change.media, change.communication.disconnect_type or ""] += 1
            if connected is not None:
                self.duration_ms.append((change.media, _between(connected, ended)))


def _first(entries: list[Entry], rank: int) -> Entry | None:
    """The first entry of a rank; for `DISCONNECTED` any end counts."""
    return next(
        (entry for entry in entries if entry.rank == rank or (rank == DISCONNECTED and entry.rank > rank)), None
    )


def _between(earlier: Entry, later: Entry) -> int:
    return timestamps.to_ms(later.time) - timestamps.to_ms(earlier.time)
