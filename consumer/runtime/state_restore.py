"""Restoring a partition's state from the state topic, and telling whether it is the one that was committed.

What tells of a loss may be old itself: a leader that was suspended and has been replaced tells an older end, until it
hears of that. So a loss is believed only when it is seen a second time.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec

from consumer.runtime.bookmark import Bookmark
from consumer.runtime.kafka_tools import rewind_command
from consumer.runtime.ports import Chunk, Misfit, StateLog, Unreachable
from consumer.runtime.settings import Settings
from consumer.runtime.state_store import StateStore

_SETTLED_PER_TURN_MAX = 200


class StateRestore:
    """Brings the store of one input partition to where its partition of the state topic ends."""

    def __init__(self, partition: int, store: StateStore, state_log: StateLog, settings: Settings) -> None:
        self._partition = partition
        self._store = store
        self._state_log = state_log
        self._is_atomic = settings.delivery == "exactly_once"
        self._name = f"partition {partition} of the state topic {settings.state_topic!r} (CC_STATE_TOPIC)"
        self._rewind = rewind_command(settings)
        self._loss_seen = False

    async def read(self) -> AsyncGenerator[int, None]:
        """Read on from where the store left off, which is the beginning for a new one; yields how many are left.

        Raises WorldError: Unreachable if it has to be tried again, with another producer and another offset.
        """
        store = self._store
        async with contextlib.aclosing(self._state_log.read(self._partition, store.log_offset)) as chunks:
            async for chunk in chunks:
                if chunk.end_offset < store.log_offset:
                    raise self._loss(
                        f"{self._name} ends at {chunk.end_offset}, before what this worker has already read of it: it "
                        f"was truncated or made anew; start again to restore from it"
                    )
                await self._take_in(chunk)
                store.log_offset = chunk.next_offset
                if chunk.entries:
                    store.state_offset = chunk.next_offset
                yield max(0, chunk.end_offset - chunk.next_offset)

    def verify(self, marked: Bookmark | None) -> None:
        """What was restored has to be what was committed with the offset. Raises WorldError as `read`.

        `marked` is the offset's bookmark, None where the group has no offset. A store that does not fit is cleared:
        what it holds may have been shown by a broker that was not right then.
        """
        store = self._store
        if not self._is_atomic:
            return
        if marked is None:
            if store.state_offset:
                store.clear()
                raise Unreachable(
                    f"{self._name} holds conversations, but the group has no committed offset: they are committed "
                    f"together. If it stays so, the group's offsets have expired or were deleted, or another group "
                    f"wrote the state (CC_GROUP_ID): to read the input from its beginning over it, run {self._rewind}"
                )
            return
        held, ends_at, marked_end = len(store), store.state_offset, marked.ends.state
        is_ahead = marked_end is not None and ends_at > marked_end
        is_short = marked_end is not None and store.log_offset < marked_end
        if not is_ahead and not is_short and marked.conversations in {None, held}:
            self._loss_seen = False
            store.state_offset = max(ends_at, marked_end or 0)  # compaction may have removed a tombstone before it
            return
        cause = "this is not the newest" if is_ahead else "the topic was truncated or made anew"
        told = (
            f"{self._name} holds {held} conversations up to offset {ends_at} and ends at {store.log_offset}, but the "
            f"input offset was committed with {marked.conversations} up to {marked_end}: {cause}, or others write to "
            f"it. If it stays so, rebuild it: stop all workers, run {self._rewind}, and start"
        )
        store.clear()
        raise Unreachable(told) if is_ahead else self._loss(told)

    def verify_written(self, log_offset: int | None) -> None:
        """A commit's states, None for none, have to follow what was there. Raises Misfit."""
        if log_offset is not None and log_offset <= self._store.log_offset:
            raise Misfit(
                f"{self._name} ends at {log_offset}, before what this worker has already written: it was made anew; "
                f"start again to be told how to rebuild it"
            )

    def _loss(self, told: str) -> Unreachable | Misfit:
        if self._loss_seen:
            return Misfit(told)
        self._loss_seen = True
        return Unreachable(told)

    async def _take_in(self, chunk: Chunk) -> None:
        try:
            self._store.restore(chunk.entries)
            while self._store.settle(_SETTLED_PER_TURN_MAX):  # noqa: ASYNC110 - a turn for the loop, no wait
                await asyncio.sleep(0)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Misfit(
                f"{self._name} holds a record before offset {chunk.next_offset} that is no state of a conversation: "
                f"others write to it, or another version of this service did"
            ) from error
