"""Deciding over what hangs of a lane's last transaction, before its state is restored.

`settlement` says how the verdict is found; `kafka.markers` what a marker is, and how brokers lose one.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from consumer.kafka_commands import abort_command
from consumer.settings import OUTPUTS, OutputName, Settings
from consumer.worker import offset_metadata
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.ports import Committed, Publisher, RetriableError, Telemetry
from consumer.worker.settlement import ABORTS_SEEN_MIN, Settlement, decide, ends_of

_OFFSETS_TOPIC = "__consumer_offsets"


class Settled(Struct, frozen=True):
    """What a lane begins with."""

    committed: Committed | None
    stable: Ends
    """Where the outputs end for readers of committed records."""


class TransactionRepair:
    """Settles what the producers of one input partition left behind."""

    def __init__(
        self, partition: int, settings: Settings, telemetry: Telemetry, note_progress: Callable[[], None]
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._topics = settings.outputs
        self._telemetry = telemetry
        self._note_progress = note_progress
        self._aborts_seen = 0

    async def settle(
        self, publisher: Publisher, committed: Callable[[], Awaitable[Committed | None]], known_commit: int | None
    ) -> Settled:
        """Write the markers that are missing; returns the committed offset.

        `publisher` has just been opened, `committed` asks for the group's offset, and `known_commit` is the newest one
        that the lane knows to be committed. Raises RetriableError: to be tried again, with another producer.
        """
        settlement = await publisher.settlement()
        self._note_progress()
        found = await committed()
        self._note_progress()
        if not settlement.hangs:
            self._aborts_seen = 0
            return Settled(found, settlement.stable)
        marked = None if found is None else offset_metadata.parse(found.metadata)
        shown = await self._shown(publisher, settlement, marked) if settlement.is_offset_pending else frozenset()
        is_known_commit = known_commit is not None and (found is None or found.next_offset < known_commit)
        verdict = decide(settlement, marked, shown, is_known_commit=is_known_commit)
        if verdict is None:
            raise RetriableError(self._unknown(settlement, marked))
        self._aborts_seen = self._aborts_seen + 1 if verdict == "abort" else 0
        if 0 < self._aborts_seen < ABORTS_SEEN_MIN:
            raise RetriableError(
                f"the brokers lost the end of a transaction of partition {self._partition} (KAFKA-20734) and show no "
                f"commit of it so far: looking again before it is aborted"
            )
        await publisher.settle(settlement, verdict)
        self._note_progress()
        hanging = [
            *(self._topics[output] for output in settlement.hanging),
            *[_OFFSETS_TOPIC] * settlement.is_offset_pending,
        ]
        self._telemetry.transaction_repaired(self._partition, verdict, hanging)
        self._aborts_seen = 0
        settlement = await publisher.settlement()
        self._note_progress()
        if settlement.hangs:
            raise RetriableError(f"what was repaired of the last transaction still hangs: {self._places(settlement)}")
        return Settled(await committed(), settlement.stable)

    async def _shown(
        self, publisher: Publisher, settlement: Settlement, marked: OffsetMetadata | None
    ) -> frozenset[OutputName]:
        """The outputs that show a record which was committed after the offset."""
        ends = ends_of(marked)
        shown = set()
        for output in OUTPUTS:
            end = ends.of(output)
            if output not in settlement.hanging and end is not None and await publisher.shows(output, end):
                shown.add(output)
            self._note_progress()
        return frozenset(shown)

    def _unknown(self, settlement: Settlement, marked: OffsetMetadata | None) -> str:
        commands = ", ".join(
            abort_command(self._settings, self._topics[output], self._partition, start)
            for output, start in settlement.hanging.items()
        )
        remedy = f": if it stays so, decide yourself: to drop what hangs, run {commands}" if commands else ""
        return (
            f"the brokers lost the end of a transaction of partition {self._partition} (KAFKA-20734), and nothing "
            f"shows whether it was committed: {self._places(settlement)}; the outputs end at {ends_of(marked)} with "
            f"the committed offset{remedy}"
        )

    def _places(self, settlement: Settlement) -> str:
        places = [f"{self._topics[output]!r} from offset {start}" for output, start in settlement.hanging.items()]
        return ", ".join([*places, *["the committed offset"] * settlement.is_offset_pending])
