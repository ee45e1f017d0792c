"""Restores the states of a partition from the state topic, and verifies that they are those that were committed.

A sign of a loss may itself be old: a leader that was suspended and replaced answers with an older end until it learns
of that. So a loss counts only when it is seen a second time.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec

from consumer.engine.protocol import States
from consumer.kafka_commands import rewind_command
from consumer.settings import Settings
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Chunk, ConfigurationError, RetriableError, StateLog

_SETTLED_PER_TURN_MAX = 200


class StateRestore:
    """Brings the states of one input partition to the end of its partition of the state topic."""

    def __init__(self, partition: int, states: States, state_log: StateLog, settings: Settings) -> None:
        self._partition = partition
        self._states = states
        self._state_log = state_log
        self._is_atomic = settings.delivery == "exactly_once"
        self._name = f"partition {partition} of the state topic {settings.state_topic!r} (CC_STATE_TOPIC)"
        self._rewind = rewind_command(settings)
        self._loss_seen = False

    async def read(self) -> AsyncGenerator[int, None]:
        """Read on from where the store left off, which is the beginning for a new one; yields how many are left.

        Raises ExternalError: RetriableError if it has to be tried again, with another producer and another offset.
        """
        states = self._states
        async with contextlib.aclosing(self._state_log.read(self._partition, states.log_offset)) as chunks:
            async for chunk in chunks:
                if chunk.end_offset < states.log_offset:
                    raise self._loss(
                        f"{self._name} ends at {chunk.end_offset}, before what this worker has already read of it: it "
                        f"was truncated or recreated; start again to restore from it"
                    )
                await self._add(chunk)
                states.log_offset = chunk.next_offset
                if chunk.entries:
                    states.state_offset = chunk.next_offset
                yield max(0, chunk.end_offset - chunk.next_offset)

    def verify(self, marked: OffsetMetadata | None) -> None:
        """What was restored has to be what was committed with the offset. Raises ExternalError as `read`.

        `marked` is the offset's metadata, None where the group has no offset. A store that does not fit is cleared:
        what it holds may have been shown by a broker that was not right then.
        """
        states = self._states
        if not self._is_atomic:
            return
        if marked is None:
            if states.state_offset:
                states.clear()
                raise RetriableError(
                    f"{self._name} holds conversations, but the group has no committed offset: they are committed "
                    f"together. If it stays so, the group's offsets have expired or were deleted, or another group "
                    f"wrote the state (CC_GROUP_ID): to read the input from its beginning over it, run {self._rewind}"
                )
            return
        held, ends_at, marked_end = len(states), states.state_offset, marked.ends.state
        is_ahead = marked_end is not None and ends_at > marked_end
        is_short = marked_end is not None and states.log_offset < marked_end
        if not is_ahead and not is_short and marked.conversations in {None, held}:
            self._loss_seen = False
            states.state_offset = max(ends_at, marked_end or 0)  # compaction may have removed a tombstone before it
            return
        cause = "this is not the newest" if is_ahead else "the topic was truncated or recreated"
        message = (
            f"{self._name} holds {held} conversations up to offset {ends_at} and ends at {states.log_offset}, but the "
            f"input offset was committed with {marked.conversations} up to {marked_end}: {cause}, or others write to "
            f"it. If it stays so, rebuild it: stop all workers, run {self._rewind}, and start"
        )
        states.clear()
        raise RetriableError(message) if is_ahead else self._loss(message)

    def verify_written(self, log_offset: int | None) -> None:
        """A commit's states, None for none, have to follow what was there. Raises ConfigurationError."""
        if log_offset is not None and log_offset <= self._states.log_offset:
            raise ConfigurationError(
                f"{self._name} ends at {log_offset}, before what this worker has already written: it was recreated; "
                f"start again to see how to rebuild it"
            )

    def _loss(self, message: str) -> RetriableError | ConfigurationError:
        if self._loss_seen:
            return ConfigurationError(message)
        self._loss_seen = True
        return RetriableError(message)

    async def _add(self, chunk: Chunk) -> None:
        try:
            self._states.restore(chunk.entries)
            while self._states.settle(_SETTLED_PER_TURN_MAX):  # noqa: ASYNC110 - a turn for the loop, no wait
                await asyncio.sleep(0)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{self._name} holds a record before offset {chunk.next_offset} that is no state of a conversation: "
                f"others write to it, or another version of this service did"
            ) from error
