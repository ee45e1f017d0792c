"""When a restored state is accepted as the committed one."""

from collections.abc import AsyncGenerator

import pytest

from consumer.core.outcomes import Applied
from consumer.core.step import step
from consumer.engine.state_store import StateStore
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.ports import Chunk, ConfigurationError, RetriableError
from consumer.worker.state_restore import StateRestore
from tests.worker.scenes import call, settings_of


class Log:
    """A partition of the state topic: records by offset, and its end, which may be behind transaction markers."""

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
    """The key and state of the conversation that the input record at an offset creates."""
    outcome = step(call(offset, "alerting", 1, f"c{offset}"), settings_of().rules(), None, lambda _: None)
    assert isinstance(outcome, Applied)
    return outcome.conversation_id.encode(), outcome.stored.published


LOG = {3: state(0), 5: state(1)}
END = 9


async def restore_log(log: Log) -> tuple[StateRestore, StateStore]:
    store = StateStore(settings_of().rules())
    restore = StateRestore(0, store, log, settings_of())
    await run_restore(restore)
    return restore, store


async def run_restore(restore: StateRestore) -> list[int]:
    return [remaining async for remaining in restore.read()]


async def test_markers_after_the_newest_state_do_not_count() -> None:
    restore, store = await restore_log(Log(LOG, END))
    assert (store.log_offset, store.state_offset, len(store)) == (9, 6, 2)
    restore.verify(OffsetMetadata(None, 2, Ends(6)))


async def test_restore_yields_the_remaining_records() -> None:
    store = StateStore(settings_of().rules())
    assert await run_restore(StateRestore(0, store, Log(LOG, END), settings_of())) == [9, 5, 3, 0]


async def test_state_ahead_of_the_offset_is_never_a_loss() -> None:
    restore, _ = await restore_log(Log(LOG, END))
    for _ in range(3):
        with pytest.raises(RetriableError, match="this is not the newest"):
            restore.verify(OffsetMetadata(None, 2, Ends(4)))
        await run_restore(restore)


async def test_rejected_states_do_not_stay_in_memory() -> None:
    """They are cleared, and the next restore reads the topic from its beginning."""
    log = Log(LOG, END)
    restore, store = await restore_log(log)
    with pytest.raises(RetriableError, match="this is not the newest"):
        restore.verify(OffsetMetadata(None, 1, Ends(4)))
    assert (len(store), store.committed_bytes, store.log_offset, store.state_offset) == (0, 0, 0, 0)
    log.records = {3: LOG[3]}
    await run_restore(restore)
    restore.verify(OffsetMetadata(None, 1, Ends(4)))
    assert [key for key, _ in store.items()] == ["c0"]


@pytest.mark.parametrize(
    "metadata", [OffsetMetadata(None, 2, Ends(END + 1)), OffsetMetadata(None, 3, Ends(6)), OffsetMetadata(None, 3)]
)
async def test_loss_is_fatal_when_two_reads_in_a_row_show_it(metadata: OffsetMetadata) -> None:
    """A read that verifies in between starts the count again."""
    restore, _ = await restore_log(Log(LOG, END))
    for _ in range(2):
        with pytest.raises(RetriableError, match="truncated"):
            restore.verify(metadata)
        await run_restore(restore)
        restore.verify(OffsetMetadata(None, 2, Ends(6)))
    with pytest.raises(RetriableError, match="truncated"):
        restore.verify(metadata)
    await run_restore(restore)
    with pytest.raises(ConfigurationError, match="--reset-offsets"):
        restore.verify(metadata)


async def test_metadata_without_ends_accepts_any_state() -> None:
    restore, _ = await restore_log(Log(LOG, END))
    restore.verify(OffsetMetadata())
    restore.verify(OffsetMetadata(None, 2))


async def test_topic_that_ends_before_the_read_offset_is_read_again() -> None:
    log = Log(LOG, END)
    restore, store = await restore_log(log)
    log.end = 4
    with pytest.raises(RetriableError, match="truncated or recreated"):
        await run_restore(restore)
    with pytest.raises(ConfigurationError, match="truncated or recreated"):
        await run_restore(restore)
    assert (store.log_offset, store.state_offset, len(store)) == (9, 6, 2)


async def test_tombstone_removed_by_compaction_is_no_loss() -> None:
    """The newest state was a tombstone before offset 8; aborted commits keep the log's end behind it."""
    restore, store = await restore_log(Log(LOG, END))
    restore.verify(OffsetMetadata(None, 2, Ends(8)))
    assert (store.state_offset, store.log_offset) == (8, 9)


async def test_state_without_a_committed_offset_is_rejected() -> None:
    """They are committed together, so the offset has expired; reading all again would repeat its effects."""
    restore, store = await restore_log(Log(LOG, END))
    for _ in range(3):
        with pytest.raises(RetriableError, match=r"no committed offset.*expired.*--reset-offsets"):
            restore.verify(None)
        assert len(store) == 0
        await run_restore(restore)


async def test_empty_state_without_an_offset_is_accepted() -> None:
    """The log may hold the markers of aborted commits."""
    restore, _ = await restore_log(Log({}, END))
    restore.verify(None)


async def test_at_least_once_accepts_a_state_without_an_offset() -> None:
    """The state is written before the offset, so a crash in between leaves only the state."""
    store = StateStore(settings_of().rules())
    restore = StateRestore(0, store, Log(LOG, END), settings_of(delivery="at_least_once"))
    await run_restore(restore)
    restore.verify(None)
    assert len(store) == 2
