"""What a lane does about a transaction of which brokers have lost markers."""

import asyncio
from typing import Any

import pytest

from consumer.runtime.bookmark import Ends
from consumer.runtime.ports import Committed, Unreachable
from consumer.runtime.settlement import ABORTS_SEEN_MIN, Settlement, Verdict
from consumer.runtime.transaction_repair import Settled, TransactionRepair
from tests.fakes import Broker, FakePublisher, FakeTelemetry
from tests.runtime.scenes import settings_of

OLD = Committed(5, "conversations=1 state-offset=1 transitions-offset=2 dead-letters-offset=0")
NEW = Committed(9, "conversations=2 state-offset=3 transitions-offset=4 dead-letters-offset=0")


class Scene:
    """Partition 0 after a transaction that ended, and a lane that opens."""

    def __init__(self, undecided: Settlement, committed: Committed | None, *shown: str) -> None:
        self.broker = Broker()
        self.partition = self.broker.partitions[0]
        self.partition.undecided, self.partition.committed = undecided, committed
        self.partition.shown = set(shown)
        self.partition.decide = self._decide
        self.telemetry = FakeTelemetry()
        self.progress = 0
        self._repair = TransactionRepair(0, settings_of(), self.telemetry, self._note_progress)

    async def settle(self, known_commit: int | None = None) -> Settled:
        async def committed() -> Committed | None:
            await self.broker.called("committed")
            return self.partition.committed

        return await self._repair.settle(FakePublisher(self.broker, 0), committed, known_commit)

    async def failures(self, count: int) -> set[str]:
        """What is said when it fails so many times in a row."""
        said = set()
        for _ in range(count):
            with pytest.raises(Unreachable) as caught:
                await self.settle()
            said.add(str(caught.value))
        return said

    @property
    def repaired(self) -> list[tuple[Any, ...]]:
        return self.telemetry.of("transaction_repaired")

    def _decide(self, verdict: Verdict) -> None:
        if verdict == "commit" and self.partition.undecided.is_offset_pending:
            self.partition.committed = NEW
        self.partition.undecided = Settlement()

    def _note_progress(self) -> None:
        self.progress += 1


async def test_nothing_hangs_and_nothing_is_done() -> None:
    """The offset and the ends of the outputs are what a lane begins with."""
    scene = Scene(Settlement(), OLD)
    assert await scene.settle() == Settled(OLD, Ends(0, 0, 0))
    assert (scene.broker.calls, scene.repaired) == (["committed"], [])


async def test_a_commit_is_repaired_at_once_and_told() -> None:
    """The offset's bookmark ends behind the records that hang."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    assert (await scene.settle()).committed == NEW
    assert scene.repaired == [(0, "commit", ["conversation-transitions"])]
    assert scene.progress == 4


async def test_a_pending_offset_follows_what_the_outputs_show() -> None:
    """Only outputs that do not hang can show it, and from where they ended with the offset before."""
    scene = Scene(Settlement(hanging={"state": 2}, is_offset_pending=True), OLD, "transitions")
    assert (await scene.settle()).committed == NEW
    assert scene.repaired == [(0, "commit", ["conversation-state", "__consumer_offsets"])]
    asked = [call for call in scene.broker.calls if call.startswith("shows")]
    assert asked == ["shows transitions 2", "shows dead_letters 0"]


async def test_a_commit_that_was_answered_is_one() -> None:
    """The lane knows of an offset that is newer than the decided one."""
    scene = Scene(Settlement(is_offset_pending=True), OLD)
    assert (await scene.settle(known_commit=9)).committed == NEW
    assert scene.repaired == [(0, "commit", ["__consumer_offsets"])]


async def test_an_abort_is_believed_when_it_is_seen_again() -> None:
    """A broker that is late to show a commit would turn it into an abort."""
    scene = Scene(Settlement(hanging={"state": 2}), OLD)
    (said,) = await scene.failures(ABORTS_SEEN_MIN - 1)
    assert "KAFKA-20734" in said
    assert scene.repaired == []
    assert (await scene.settle()).committed == OLD
    assert scene.repaired == [(0, "abort", ["conversation-state"])]


async def test_an_abort_has_to_be_seen_in_a_row() -> None:
    """What was shown in between counts."""
    scene = Scene(Settlement(hanging={"state": 2}), OLD)
    await scene.failures(ABORTS_SEEN_MIN - 1)
    undecided, scene.partition.undecided = scene.partition.undecided, Settlement()
    await scene.settle()
    scene.partition.undecided = undecided
    await scene.failures(ABORTS_SEEN_MIN - 1)
    assert scene.repaired == []


async def test_what_cannot_be_known_is_refused_with_the_remedy() -> None:
    """An operator decides, by a command that can be run as it stands."""
    scene = Scene(Settlement(hanging={"transitions": 7}), Committed(5, "conversations=1 state-offset=1"))
    (said,) = await scene.failures(2 * ABORTS_SEEN_MIN)
    assert "'conversation-transitions' from offset 7" in said
    assert "kafka-transactions --bootstrap-server b:1 abort --topic conversation-transitions --partition 0" in said
    assert scene.repaired == []


async def test_a_repair_that_did_not_help_is_tried_again() -> None:
    """Markers can be lost once more."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    scene.partition.decide = lambda _: None
    (said,) = await scene.failures(2)
    assert "still hangs" in said
    assert len(scene.repaired) == 2


async def test_a_repair_can_be_cancelled() -> None:
    """It leaves nothing that was not there before."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    scene.broker.at("settle", asyncio.Event().wait)  # type: ignore[arg-type]
    task = asyncio.create_task(scene.settle())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.repaired == []
