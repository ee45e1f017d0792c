"""Inspect one conversation: read its published state, and explain what each of its records changed."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from consumer.core.record import Record
from consumer.core.state_codec import without_source
from consumer.kafka.records import OffsetRange, find_candidates
from consumer.kafka.state_lookup import KafkaStateLookup
from consumer.query.lookup import Unfinished
from consumer.settings import Settings
from consumer.tools.explain import Explanation, explain
from consumer.tools.read_spans import Track
from consumer.tools.replay import Replay
from consumer.tools.topics_reader import TopicsReader
from consumer.worker.ports import ConfigurationError, RetriableError
from consumer.worker.standstill import LogEnd
from schemas.state import ConversationState

_LOOKUP_S = 600.0
_STATE = msgspec.json.Decoder(ConversationState)


class Inspection:
    """One conversation on the topics. Every method raises ExternalError.

    Without `partition` it is looked for where Kafka's own partitioner puts its id, spelled as in the newest records and
    as it stands. Which of the two it is in is known once the state was read.
    """

    def __init__(
        self, settings: Settings, reader: TopicsReader, conversation_id: str, partition: int | None = None
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._conversation_id = conversation_id
        self._key = conversation_id.encode("utf-8", "surrogateescape")
        self._given_partition = partition
        if partition is not None:
            reader.check_partition(partition)
        self.partition = partition or 0
        self._published: bytes | None = None

    async def read_state(self) -> ConversationState | None:
        """The newest committed state; None if there is none."""
        settings, partitions = self._settings, await self._find_candidates()
        for partition in partitions:
            self._published = await self._read_published(partition)
            if self._published is not None:
                break
        self.partition = partitions[0] if self._published is None else partition
        if self._published is None:
            return None
        try:
            return _STATE.decode(self._published)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{settings.state_topic!r} (CC_STATE_TOPIC) holds something else than a state of this conversation: "
                f"another producer writes to it, or another version of this service did"
            ) from error

    async def _find_candidates(self) -> list[int]:
        if self._given_partition is not None:
            return [self._given_partition]
        newest_key = await self._reader.find_newest_key()
        return find_candidates(self._conversation_id, newest_key, self._reader.partitions)

    async def _read_published(self, partition: int) -> bytes | None:
        found = await KafkaStateLookup(self._settings, _LOOKUP_S).newest(partition, self._key)
        if isinstance(found, Unfinished):
            raise RetriableError(
                f"partition {partition} of {self._settings.state_topic!r} could not be read within {_LOOKUP_S:g} s, "
                f"only back to offset {found.read_from}: try again nearer to the brokers"
            )
        return found.state

    async def find_undecided(self) -> LogEnd | None:
        """The end of the input partition if records there wait for the end of a transaction; None otherwise."""
        return (await self._reader.find_undecided([self.partition])).get(self.partition)

    async def start_replay(self, undecided: LogEnd | None) -> "ConversationReplay":
        """A replay of the input partition up to its end, or up to the first undecided record."""
        span = await self._reader.span(self._settings.input_topic, self.partition)
        if undecided is not None:
            span = OffsetRange(span.begin, max(span.begin, undecided.stable))
        committed = await self._reader.find_committed(self.partition)
        committed_offset = 0 if committed is None else committed.next_offset
        return ConversationReplay(
            self._settings, self._reader, self._conversation_id, self.partition, span, committed_offset, self._published
        )


class ConversationReplay:
    """Finds the records of one conversation in its input partition, and explains what each of them changed."""

    def __init__(
        self,
        settings: Settings,
        reader: TopicsReader,
        conversation_id: str,
        partition: int,
        span: OffsetRange,
        committed_offset: int,
        published: bytes | None,
    ) -> None:
        self.span = span
        """The offsets of the input that are read."""
        self.committed_offset = committed_offset
        """The group has consumed the records before this one."""
        self._settings = settings
        self._reader = reader
        self._conversation_id = conversation_id
        self._key = conversation_id.encode("utf-8", "surrogateescape")
        self._partition = partition
        self._published = published
        self._replay = Replay(settings.rules())
        self._state_at_commit: bytes | None = None
        """The state recomputed from the records that the group has consumed."""

    @property
    def explains_state(self) -> bool:
        """Whether the consumed records give the published state, once all explanations were read."""
        recomputed, published = self._state_at_commit, self._published
        if recomputed is None or published is None:
            return recomputed is published
        return without_source(recomputed) == without_source(published)

    async def explanations(self, track: Track) -> AsyncGenerator[Explanation, None]:
        """An explanation of each record, in order of offset. Raises ExternalError."""
        topic, span = self._settings.input_topic, self.span
        with track(f"reading partition {self._partition}", span.end - span.begin) as on_read:
            async with aclosing(self._reader.read(topic, self._partition, span, on_read)) as slices:
                async for records in slices:
                    for record in records:
                        explanation = self._apply(record)
                        if explanation is not None:
                            yield explanation
                    self._replay.commit()

    def _apply(self, record: Record) -> Explanation | None:
        explanation = None
        # Only a record that contains the id can belong to the conversation; all others just move stream time.
        if self._key in (record.key or b"") or self._key in (record.value or b""):
            before, outcome = self._replay.apply(record)
            mentions = outcome.conversation_id == self._conversation_id or outcome.reason == "key_mismatch"
            if mentions or record.key == self._key:
                explanation = explain(record, self._settings.rules(), before, outcome)
        else:
            self._replay.skip(record)
        if record.offset < self.committed_offset:
            stored = self._replay.store.lookup(self._conversation_id)
            self._state_at_commit = None if stored is None else stored.published
        return explanation
