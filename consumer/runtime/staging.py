"""What a lane has processed since its last commit: the effects to publish at once, and what they come to.

Dropped as a whole or committed as a whole; the store and the breaker keep their parts of it in the same way.
"""

from collections.abc import Callable

import msgspec

from consumer.core.record import Record
from consumer.core.step import step
from consumer.runtime.bookmark import Bookmark
from consumer.runtime.breaker import Breaker
from consumer.runtime.commit_policy import Staged
from consumer.runtime.dead_letters import dead_letter
from consumer.runtime.ports import Effects, Output
from consumer.runtime.settings import Settings
from consumer.runtime.state_store import StateStore
from consumer.runtime.tally import Tally

_ENCODER = msgspec.json.Encoder()


class Staging:
    """The records of one lane, processed one after the other."""

    def __init__(
        self, store: StateStore, breaker: Breaker, settings: Settings, version: str, monotonic_s: Callable[[], float]
    ) -> None:
        self.next_offset: int | None = None
        """The offset after the last record that was processed, or passed over as the marker of a transaction."""
        self.stream_ms: int | None = None
        """Stream time of the partition."""
        self._store = store
        self._breaker = breaker
        self._settings = settings
        self._rules = settings.rules()
        self._version = version
        self._monotonic_s = monotonic_s
        self.clear()

    def take(self, record: Record, now_ms: int) -> None:
        """Process a record and stage what it comes to; `now_ms` is the wall clock."""
        outcome = step(record, self._rules, self.stream_ms, self._store.lookup)
        self.tally.add(record, outcome, self.stream_ms, now_ms)
        if not self.staged.records:
            self.staged.since_s = self._monotonic_s()
        self.staged.records += 1
        self.next_offset = record.next_offset
        if outcome.known is not None:
            self._store.stage(outcome.conversation_id, outcome.known)
            key = outcome.conversation_id.encode()
            for transition in outcome.transitions:
                self._transitions.append(Output(key, _ENCODER.encode(transition)))
            self.staged.bytes += len(outcome.known.published)
        elif outcome.disposition == "dead_lettered":
            self._dead_letters.append(
                dead_letter(
                    record,
                    outcome,
                    keep_payload=self._settings.dead_letter_payload == "keep",
                    payload_bytes_max=self._settings.dead_letter_bytes_max,
                    version=self._version,
                )
            )
            self.staged.bytes += len(record.value or b"")
        if outcome.stream_ms is not None and outcome.stream_ms != self.stream_ms:
            self.stream_ms = outcome.stream_ms
            self.tally.evicted += self._store.evict(self.stream_ms)
        self._breaker.add(outcome)

    def effects(self, bookmark: Bookmark) -> Effects:
        """All that is staged, with what goes into the offset's metadata."""
        assert self.next_offset is not None
        states = [Output(conversation_id.encode(), state) for conversation_id, state in self._store.staged()]
        return Effects(self.next_offset, bookmark, states, self._transitions, self._dead_letters)

    def clear(self) -> None:
        """Forget what is staged, after a commit or without one; the offset and stream time stay."""
        self.staged = Staged()
        self.tally = Tally()
        self._transitions: list[Output] = []
        self._dead_letters: list[Output] = []
