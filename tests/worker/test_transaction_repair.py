"""How a lane settles a transaction whose markers brokers have lost."""

import asyncio
from typing import Any

import pytest

from consumer.engine.output import Output
from consumer.settings import OutputName
from consumer.worker.offset_metadata import Ends
from consumer.worker.ports import Committed, RetriableError
from consumer.worker.settlement import ABORTS_SEEN_MIN, Settlement, Verdict
from consumer.worker.transaction_repair import Settled, TransactionRepair
from tests.fakes import Broker, FakePublisher, FakeTelemetry
from tests.worker.scenes import settings_of

pytestmark = pytest.mark.usefixtures("each_engine")

OLD = Committed(5, "conversations=1 state-offset=1 transitions-offset=2 dead-letters-offset=0")
NEW = Committed(9, "conversations=2 state-offset=3 transitions-offset=4 dead-letters-offset=0")


class Scene:
    """Partition 0 after its last transaction, and the repair that a lane runs when it opens."""

    def __init__(self, undecided: Settlement, committed: Committed | None, *visible: OutputName) -> None:
        self.broker = Broker()
        self.partition = self.broker.partitions[0]
        self.partition.undecided, self.partition.committed = undecided, committed
        for output in visible:
            self.partition.logs[output] += [Output(b"c1", b"of the last transaction")] * 9
        self.partition.decide = self._decide
        self.telemetry = FakeTelemetry()
        self.progress = 0
        self._repair = TransactionRepair(0, settings_of(), self.telemetry, self._note_progress)

    async def settle(self, known_commit: int | None = None) -> Settled:
        async def committed() -> Committed | None:
            await self.broker.record_call("committed")
            return self.partition.committed

        return await self._repair.settle(FakePublisher(self.broker, 0), committed, known_commit)

    async def fail(self, count: int) -> set[str]:
        """Settle so many times; each attempt has to fail. Returns the distinct messages."""
        messages = set()
        for _ in range(count):
            with pytest.raises(RetriableError) as caught:
                await self.settle()
            messages.add(str(caught.value))
        return messages

    @property
    def repaired(self) -> list[tuple[Any, ...]]:
        return self.telemetry.of("transaction_repaired")

    def _decide(self, verdict: Verdict) -> None:
        if verdict == "commit" and self.partition.undecided.is_offset_pending:
            self.partition.committed = NEW
        self.partition.undecided = Settlement()

    def _note_progress(self) -> None:
        self.progress += 1


async def test_decided_transaction_needs_no_repair() -> None:
    """The lane starts with the committed offset and the ends of the outputs."""
    scene = Scene(Settlement(), OLD)
    assert await scene.settle() == Settled(OLD, Ends(0, 0, 0))
    assert (scene.broker.calls, scene.repaired) == (["committed"], [])


async def test_commit_is_repaired_at_once_and_reported() -> None:
    """The metadata of the committed offset ends behind the hanging records."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    assert (await scene.settle()).committed == NEW
    assert scene.repaired == [(0, "commit", ["conversation-transitions"])]
    assert scene.progress == 4


async def test_pending_offset_follows_the_decided_outputs() -> None:
    """Only outputs that do not hang can show the commit, behind their ends in the previous metadata."""
    scene = Scene(Settlement(hanging={"state": 2}, is_offset_pending=True), OLD, "transitions")
    assert (await scene.settle()).committed == NEW
    assert scene.repaired == [(0, "commit", ["conversation-state", "__consumer_offsets"])]
    lookups = [call for call in scene.broker.calls if call.startswith("shows")]
    assert lookups == ["shows transitions 2", "shows dead_letters 0"]


async def test_answered_commit_is_repaired_as_a_commit() -> None:
    """The lane knows a newer offset than the decided one."""
    scene = Scene(Settlement(is_offset_pending=True), OLD)
    assert (await scene.settle(known_commit=9)).committed == NEW
    assert scene.repaired == [(0, "commit", ["__consumer_offsets"])]


async def test_abort_is_repaired_after_several_looks_in_a_row() -> None:
    """A broker that shows a commit late would turn it into an abort."""
    scene = Scene(Settlement(hanging={"state": 2}), OLD)
    (message,) = await scene.fail(ABORTS_SEEN_MIN - 1)
    assert "KAFKA-20734" in message
    assert scene.repaired == []
    assert (await scene.settle()).committed == OLD
    assert scene.repaired == [(0, "abort", ["conversation-state"])]


async def test_other_result_in_between_restarts_the_abort_count() -> None:
    """An abort is repaired only after enough equal results in a row."""
    scene = Scene(Settlement(hanging={"state": 2}), OLD)
    await scene.fail(ABORTS_SEEN_MIN - 1)
    undecided, scene.partition.undecided = scene.partition.undecided, Settlement()
    await scene.settle()
    scene.partition.undecided = undecided
    await scene.fail(ABORTS_SEEN_MIN - 1)
    assert scene.repaired == []


async def test_undecidable_transaction_is_refused_with_a_remedy() -> None:
    """An operator decides, by a command that can be run as it stands."""
    scene = Scene(Settlement(hanging={"transitions": 7}), Committed(5, "conversations=1 state-offset=1"))
    (message,) = await scene.fail(2 * ABORTS_SEEN_MIN)
    assert "'conversation-transitions' from offset 7" in message
    assert "kafka-transactions --bootstrap-server b:1 abort --topic conversation-transitions --partition 0" in message
    assert scene.repaired == []


async def test_repair_without_effect_is_tried_again() -> None:
    """Brokers can lose its markers too."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    scene.partition.decide = lambda _: None
    (message,) = await scene.fail(2)
    assert "still hangs" in message
    assert len(scene.repaired) == 2


async def test_cancelled_repair_is_not_reported() -> None:
    """A cancelled repair changes nothing."""
    scene = Scene(Settlement(hanging={"transitions": 3}), NEW)
    scene.broker.at("settle", asyncio.Event().wait)  # type: ignore[arg-type]
    task = asyncio.create_task(scene.settle())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.repaired == []
