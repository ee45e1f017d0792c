"""The states of a lane as the Python engine has them: what is committed, and over it what is staged.

1. `_staged` becomes committed as a whole or is dropped as a whole. None stands for a tombstone.
2. `_decoded` holds committed states once more, decoded: those changed or looked up last, within `_DECODED_BYTES_MAX`.
"""

from collections.abc import Iterable, Iterator

from consumer.core import state_codec
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.engine.committed_states import CommittedStates

_DECODED_BYTES_MAX = 4_194_304
"""Published bytes of the states held decoded, which take about twice as much: some 800 conversations in motion."""


class StateStore(CommittedStates):
    """In-memory state of one input partition."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._staged: dict[str, StoredState | None] = {}
        self._decoded: dict[str, StoredState] = {}
        self._decoded_bytes = 0

    def lookup(self, conversation_id: str) -> StoredState | None:
        """See `CommittedStates.lookup`."""
        if conversation_id in self._staged:
            return self._staged[conversation_id]
        decoded = self._decoded.get(conversation_id)
        if decoded is None and (published := self._committed.get(conversation_id)) is not None:
            decoded = state_codec.decode(published)
            self._keep_decoded(conversation_id, decoded)
        return decoded

    def stage(self, conversation_id: str, state: StoredState) -> None:
        """See `CommittedStates.stage`."""
        if conversation_id in self._staged and self._staged[conversation_id] is None:
            self._schedule(conversation_id, state.state)
        self._staged[conversation_id] = state

    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """See `CommittedStates.staged`."""
        for conversation_id, state in self._staged.items():
            yield conversation_id, None if state is None else state.published

    def merge(self, log_offset: int | None) -> None:
        """See `CommittedStates.merge`."""
        staged = list(self.staged())
        decoded, self._staged = self._staged, {}
        self._merge(staged, log_offset)
        for conversation_id, state in decoded.items():
            if state is not None:
                self._keep_decoded(conversation_id, state)

    def drop(self) -> None:
        """See `CommittedStates.drop`."""
        staged, self._staged = self._staged, {}
        self._drop(staged)

    def _staged_ids(self) -> Iterable[tuple[str, bool]]:
        return [(conversation_id, state is None) for conversation_id, state in self._staged.items()]

    def _find_staged(self, conversation_id: str) -> tuple[bool, bytes | None]:
        state = self._staged.get(conversation_id)
        return conversation_id in self._staged, None if state is None else state.published

    def _stage_tombstone(self, conversation_id: str) -> None:
        self._staged[conversation_id] = None

    def _put(self, conversation_id: str, published: bytes | None, *, is_ours: bool = False) -> None:
        super()._put(conversation_id, published, is_ours=is_ours)
        self._forget_decoded(conversation_id)

    def _keep_decoded(self, conversation_id: str, state: StoredState) -> None:
        """Hold a state that is not held decoded yet: `_put` drops the one before."""
        self._decoded[conversation_id] = state
        self._decoded_bytes += len(state.published)
        while self._decoded_bytes > _DECODED_BYTES_MAX:
            self._forget_decoded(next(iter(self._decoded)))

    def _forget_decoded(self, conversation_id: str) -> None:
        forgotten = self._decoded.pop(conversation_id, None)
        if forgotten is not None:
            self._decoded_bytes -= len(forgotten.published)
