"""Whether a restored state is taken for the one that was committed."""

from collections.abc import AsyncGenerator

import pytest

from consumer.core.step import step
from consumer.runtime.bookmark import Bookmark, Ends
from consumer.runtime.ports import Chunk, Misfit, Unreachable
from consumer.runtime.state_restore import StateRestore
from consumer.runtime.state_store import StateStore
from tests.runtime.scenes import call, settings_of


class Log:
    """A partition of the state topic: records with their offsets, and where it ends, which may be after markers."""

    def __init__(self, records: dict[int, tuple[bytes, bytes | None]], end: int) -> None:
        self.records = records
        self.end = end

    async def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        assert partition == 0
        yield Chunk([], min(from_offset, self.end), self.end)
        for offset, record in self.records.items():
            if from_offset <= offset < self.end:
                yield Chunk([record], offset + 1, self.end)
        yield Chunk([], self.end, self.end)


def state(offset: int) -> tuple[bytes, bytes | None]:
    """A conversation's state, as the record at an offset of the input made it."""
    outcome = step(call(offset, "alerting", 1, f"c{offset}"), settings_of().rules(), None, lambda _: None)
    assert outcome.known is not None
    return outcome.conversation_id.encode(), outcome.known.published


LOG = {3: state(0), 5: state(1)}
END = 9


async def restored(log: Log) -> tuple[StateRestore, StateStore]:
    store = StateStore(settings_of().rules())
    restore = StateRestore(0, store, log, settings_of())
    await read(restore)
    return restore, store


async def read(restore: StateRestore) -> list[int]:
    return [left async for left in restore.read()]


async def test_markers_after_the_newest_state_are_passed_and_do_not_count() -> None:
    restore, store = await restored(Log(LOG, END))
    assert (store.log_offset, store.state_offset, len(store)) == (9, 6, 2)
    restore.verify(Bookmark(None, 2, Ends(6)))


async def test_it_tells_how_many_are_left() -> None:
    store = StateStore(settings_of().rules())
    assert await read(StateRestore(0, store, Log(LOG, END), settings_of())) == [9, 5, 3, 0]


async def test_a_state_ahead_of_the_offset_is_never_taken_for_a_loss() -> None:
    restore, _ = await restored(Log(LOG, END))
    for _ in range(3):
        with pytest.raises(Unreachable, match="this is not the newest"):
            restore.verify(Bookmark(None, 2, Ends(4)))
        await read(restore)


async def test_what_was_shown_by_mistake_does_not_stay_in_memory() -> None:
    log = Log(LOG, END)
    restore, store = await restored(log)
    with pytest.raises(Unreachable, match="this is not the newest"):
        restore.verify(Bookmark(None, 1, Ends(4)))
    assert (len(store), store.committed_bytes, store.log_offset, store.state_offset) == (0, 0, 0, 0)
    log.records = {3: LOG[3]}
    await read(restore)
    restore.verify(Bookmark(None, 1, Ends(4)))
    assert [key for key, _ in store.items()] == ["c0"]


@pytest.mark.parametrize("marked", [Bookmark(None, 2, Ends(END + 1)), Bookmark(None, 3, Ends(6)), Bookmark(None, 3)])
async def test_a_loss_is_believed_when_it_is_seen_again_with_nothing_right_in_between(marked: Bookmark) -> None:
    restore, _ = await restored(Log(LOG, END))
    for _ in range(2):
        with pytest.raises(Unreachable, match="truncated"):
            restore.verify(marked)
        await read(restore)
        restore.verify(Bookmark(None, 2, Ends(6)))
    with pytest.raises(Unreachable, match="truncated"):
        restore.verify(marked)
    await read(restore)
    with pytest.raises(Misfit, match="--reset-offsets"):
        restore.verify(marked)


async def test_what_an_offset_without_a_mark_says_nothing_about_is_taken_as_it_is() -> None:
    restore, _ = await restored(Log(LOG, END))
    restore.verify(Bookmark())
    restore.verify(Bookmark(None, 2))


async def test_a_topic_that_ends_before_what_was_read_of_it_is_read_again_once() -> None:
    log = Log(LOG, END)
    restore, store = await restored(log)
    log.end = 4
    with pytest.raises(Unreachable, match="truncated or made anew"):
        await read(restore)
    with pytest.raises(Misfit, match="truncated or made anew"):
        await read(restore)
    assert (store.log_offset, store.state_offset, len(store)) == (9, 6, 2)


async def test_a_tombstone_that_compaction_removed_is_no_loss() -> None:
    """The newest state was a tombstone before offset 8; aborted commits keep the log's end behind it."""
    restore, store = await restored(Log(LOG, END))
    restore.verify(Bookmark(None, 2, Ends(8)))
    assert (store.state_offset, store.log_offset) == (8, 9)


async def test_a_state_without_an_offset_is_no_beginning() -> None:
    """They are committed together: the offset was forgotten, and reading all again would repeat its effects."""
    restore, store = await restored(Log(LOG, END))
    for _ in range(3):
        with pytest.raises(Unreachable, match=r"no committed offset.*expired.*--reset-offsets"):
            restore.verify(None)
        assert len(store) == 0
        await read(restore)


async def test_nothing_at_all_is_a_beginning() -> None:
    """Also where only markers of aborted commits are in the log."""
    restore, _ = await restored(Log({}, END))
    restore.verify(None)


async def test_at_least_once_a_state_may_be_there_before_its_offset() -> None:
    """The state is written first, so a crash in between leaves it alone."""
    store = StateStore(settings_of().rules())
    restore = StateRestore(0, store, Log(LOG, END), settings_of(delivery="at_least_once"))
    await read(restore)
    restore.verify(None)
    assert len(store) == 2
