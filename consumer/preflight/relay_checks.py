"""What the relay does, by the newest records of the input: their frames, keys, times, and whether they can be used.

1. Nothing here prevents the start: a record that cannot be used becomes a dead letter, and the newest ones may be of a
   relay that was fixed since.
2. Values and keys are never shown, only where records are and which rule they break.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from consumer.core import timestamps
from consumer.core.reading import NoUpdate, Rejected
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode
from consumer.kafka.partition_reader import PartitionReader
from consumer.kafka.records import find_candidates
from consumer.preflight.check_result import CheckResult
from consumer.settings import Settings
from consumer.worker.ports import ExternalError

_RECORDS_MAX: Final = 1_000
"""Records that are looked at, of all partitions together."""
_PARTITION_RECORDS_MAX: Final = 100
_READ_S: Final = 15.0
_HOW_TO: Final = "docs/how-to/relays.md lists what is understood"
_REKEY: Final = "copy the topic with `conversation-consumer rekey`, which writes one record for each id, keyed by it"


class Habits:
    """What was noticed of the records so far."""

    def __init__(self, rules: Rules, partitions: int) -> None:
        self._rules = rules
        self._partitions = partitions
        self.records = 0
        self.updates = 0
        self.ignored: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.first_rejected = ""
        """Where the first record is that cannot be used, and why."""
        self.framings: Counter[str] = Counter()
        """How values are framed, and keys spelled, of updates."""
        self.misplaced = 0
        """Updates that lie in another partition than Kafka's own partitioner chooses for their key and for their id."""
        self.timeless = 0
        """Records whose timestamp is no plausible time."""

    def note(self, record: Record) -> None:
        """Count one more record."""
        self.records += 1
        self.timeless += not timestamps.EARLIEST_MS <= record.timestamp_ms <= timestamps.LATEST_MS
        decoded = decode(record, self._rules)
        match decoded:
            case Snapshot():
                self.updates += 1
                self.framings.update(decoded.framings)
                homes = find_candidates(decoded.conversation_id, record.key, self._partitions)
                self.misplaced += record.partition not in homes
            case NoUpdate():
                self.ignored[decoded.reason] += 1
            case Rejected():
                self.rejected[decoded.reason] += 1
                where = f"partition {record.partition}, offset {record.offset}: {decoded.reason}: {decoded.where}"
                self.first_rejected = self.first_rejected or where


async def check(settings: Settings, partitions: int) -> list[CheckResult]:
    """Read the newest records of each partition, within a bounded time, and say what they are like. Raises nothing."""
    habits = Habits(settings.rules(), partitions)
    try:
        async with asyncio.timeout(_READ_S):
            await _read(settings, partitions, habits)
    except TimeoutError:
        pass  # the records that were read by then are described
    except ExternalError as error:
        return [CheckResult("relay", "warn", f"the newest records could not be read: {error}")]
    return describe(settings.input_topic, habits)


async def _read(settings: Settings, partitions: int, habits: Habits) -> None:
    count = max(1, min(_PARTITION_RECORDS_MAX, _RECORDS_MAX // partitions))
    async with PartitionReader(settings, passes_over=True) as reader:
        begins, ends = await reader.bounds(settings.input_topic, range(partitions))
        starts: Mapping[int, int] = {number: max(begins[number], ends[number] - count) for number in ends}
        async with aclosing(reader.read(settings.input_topic, starts, ends)) as slices:
            async for records in slices:
                for record in records:
                    habits.note(record)
                    await asyncio.sleep(0)  # a record may take tens of milliseconds


def describe(topic: str, habits: Habits) -> list[CheckResult]:
    """A result for the values, the frames, the keys and the timestamps; a single one if there are no records."""
    if not habits.records:
        message = f"no records in {topic!r} (CC_INPUT_TOPIC) yet: start the relay and check again to see what it does"
        return [CheckResult("relay", "pass", message)]
    results = [_describe_values(habits)]
    if habits.updates:
        results += [_describe_frames(habits), _describe_keys(habits)]
    return [*results, _describe_timestamps(habits)]


def _describe_values(habits: Habits) -> CheckResult:
    parts = [f"{habits.updates} updates"]
    if habits.ignored:
        parts.append(f"{habits.ignored.total()} of other kinds ({_list_counts(habits.ignored)})")
    message = f"of the newest {habits.records} records "
    if not habits.rejected:
        return CheckResult("relay", "pass", f"{message}all can be used: {', '.join(parts)}")
    parts.append(f"{habits.rejected.total()} dead letters ({_list_counts(habits.rejected)})")
    remedy = f"see {habits.first_rejected}; {_HOW_TO}"
    if habits.rejected.most_common(1)[0][0] == "key_mismatch":
        remedy = f"let the relay use the conversation id as key, or {_REKEY}; see {habits.first_rejected}"
    return CheckResult("relay", "warn", f"{message}not all can be used: {', '.join(parts)}", remedy)


def _describe_frames(habits: Habits) -> CheckResult:
    frames = _select(habits, of_keys=False)
    if not frames:
        return CheckResult("relay", "pass", "values have no frames")
    message = f"of {habits.updates} updates have frames, which cost CPU: {_list_counts(frames)}"
    return CheckResult("relay", "pass", message)


def _describe_keys(habits: Habits) -> CheckResult:
    spellings = _select(habits, of_keys=True)
    if any(count != habits.updates for count in spellings.values()):
        message = f"keys are spelled in several ways, of {habits.updates} updates: {_list_counts(spellings)}"
        remedy = f"let the relay spell them alike, for equal keys share a partition, or {_REKEY}"
        return CheckResult("relay", "warn", message, remedy)
    spelled = _list_counts(spellings) if spellings else "the conversation id"
    if habits.misplaced:
        return CheckResult(
            "relay",
            "warn",
            f"keys are {spelled}; {habits.misplaced} of {habits.updates} updates lie in another partition than Kafka's "
            f"own partitioner (murmur2) chooses",
            "nothing is lost as long as each conversation keeps to one partition; `inspect` finds what no worker has "
            "in memory only with --partition",
        )
    return CheckResult("relay", "pass", f"keys are {spelled}, in the partitions of Kafka's own partitioner")


def _describe_timestamps(habits: Habits) -> CheckResult:
    if not habits.timeless:
        return CheckResult("relay", "pass", "all records have a timestamp")
    message = f"{habits.timeless} of {habits.records} records have a timestamp that is no time"
    remedy = "let the producer send the time of arrival, in milliseconds: times in the value stand in for it meanwhile"
    return CheckResult("relay", "warn", message, remedy)


def _select(habits: Habits, *, of_keys: bool) -> Counter[str]:
    return Counter({kind: count for kind, count in habits.framings.items() if kind.startswith("key_") == of_keys})


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
