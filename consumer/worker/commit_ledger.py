"""What a lane knows of its commits. A value: each event gives the next one; the lane performs.

| event                             | what changes                                                                   |
| --------------------------------- | ------------------------------------------------------------------------------ |
| a commit begins                   | it is in flight                                                                |
| its answer comes                  | its offset is the newest; the outputs end where it says                        |
| its answer does not come          | nothing: the committed offset will show                                       |
| the lane opens                    | the committed offset shows whether the commit in flight succeeded             |
| the lane is fenced                | the commit in flight failed: the broker had aborted it                         |
| the input topic is recreated      | no offset is known any more: brokers delete the offsets together with a topic  |
"""

from msgspec import Struct
from msgspec.structs import replace

from consumer.engine.commit_stats import CommitStats
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import RetriableError


class InFlight(Struct, frozen=True):
    """A commit without an answer so far."""

    next_offset: int
    stats: CommitStats
    started_s: float


class CommitLedger(Struct, frozen=True):
    """What a lane knows of its commits."""

    newest_offset: int | None = None
    """The newest offset that is known to be committed."""
    resume_offset: int | None = None
    """Where the lane would continue if it opened again; None as long as it does not know."""
    in_flight: InFlight | None = None
    ends: Ends = Ends()
    """Where the outputs end with what is committed, but for the state: the engine knows that."""
    topic_id: str = ""
    """The id of the input topic of the offsets; empty where it is not known."""

    def read_from(self, topic_id: str) -> "CommitLedger":
        """The input topic has this id; empty if it could not be asked for."""
        newest_offset = None if is_other_topic(self.topic_id, topic_id) else self.newest_offset
        return replace(self, topic_id=topic_id, newest_offset=newest_offset)

    def begin(self, commit: InFlight) -> "CommitLedger":
        """A commit begins."""
        return replace(self, in_flight=commit)

    def succeed(self, ends: Ends) -> "CommitLedger":
        """The commit in flight succeeded; its records end at `ends` in the outputs."""
        assert self.in_flight is not None
        offset = self.in_flight.next_offset
        return CommitLedger(offset, offset, None, self.ends.advance(ends), self.topic_id)

    def fence(self) -> "CommitLedger":
        """Another producer has taken the partition over."""
        return replace(self, in_flight=None)

    def reconcile(self, offset: int | None) -> "tuple[CommitLedger, InFlight | None]":
        """The group's committed offset is known, None if there is none.

        Returns the commit that was in flight if it turns out to have succeeded. Raises RetriableError if the
        offset is older than one that is known to be committed.
        """
        if self.newest_offset is not None and (offset is None or offset < self.newest_offset):
            raise RetriableError(f"reading the committed offset: {offset} is older than {self.newest_offset}")
        commit = self.in_flight
        succeeded = commit if commit is not None and commit.next_offset == offset else None
        return replace(self, newest_offset=offset, in_flight=None), succeeded

    def resume(self, offset: int) -> "CommitLedger":
        """The lane continues from this offset."""
        return replace(self, resume_offset=offset)

    def open(self, ends: Ends) -> "CommitLedger":
        """The lane is open; the outputs end at `ends` for readers of committed records."""
        return replace(self, ends=ends)


def is_other_topic(known_id: str, topic_id: str) -> bool:
    """Whether two ids are those of different topics; not where one of them is unknown."""
    return bool(known_id and topic_id) and known_id != topic_id
