"""Batches of packed records are those that aiokafka's builder in C makes of the same records.

That one compresses also where the result is a little larger. Then the records are left uncompressed, as in Java.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.producer import AIOKafkaProducer
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.rules import Rules
from consumer.engine.output import Output, PackableOutputs, PackedRecords
from consumer.kafka.patches.packed_batches import PackedBatch, records_bytes_max
from tests.engines import engine_class

CODECS = {"none": 0} | {name: codec for name, (_, codec) in AIOKafkaProducer._COMPRESSORS.items()}
NOW_MS = 1_767_261_600_123
HEADER_BYTES = 61

Entry = tuple[str, bytes | None]

_IDS = st.text(max_size=200)
_VALUES = st.binary(max_size=70) | st.binary(min_size=1, max_size=5).map(lambda part: part * 2_000) | st.none()
ENTRIES = st.lists(st.tuples(_IDS, _VALUES), max_size=200, unique_by=lambda entry: entry[0])


@pytest.fixture(autouse=True, scope="module")
def _now() -> Iterator[None]:
    """Stop the clock: of the batches, and of what gzip writes into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW_MS / 1_000)
        yield


class Producer:
    """As much of a producer as a batch needs: aiokafka's own accumulator."""

    def __init__(self, codec: str = "none", *, is_transactional: bool = False, batch_bytes_max: int = 1 << 20) -> None:
        async def accumulate(codec: str) -> MessageAccumulator:
            transactions = TransactionManager("id" if is_transactional else None, 60_000)
            return MessageAccumulator(None, batch_bytes_max, CODECS[codec], 1, txn_manager=transactions)

        self._message_accumulator = asyncio.run(accumulate(codec))
        self._uncompressed = asyncio.run(accumulate("none"))

    def build_plainly(self, outputs: Sequence[Output]) -> tuple[bytes, int]:
        """The batch that aiokafka makes of the first records, and how many these are."""
        built = []
        for accumulator in (self._uncompressed, self._message_accumulator):
            batch = accumulator.create_builder()
            for output in outputs:
                if batch.append(timestamp=NOW_MS, key=output.key, value=output.value) is None:
                    break
            built.append(build(batch))
        return min(built, key=len), batch.record_count()


def build(batch: Any) -> bytes:
    """The bytes of a batch in a request, as accumulator and sender ask for them."""
    batch._set_producer_state(70_000, 7, 2_000_000)
    built = bytes(batch._build())
    assert bytes(batch._build()) == built, "a retry sends the same"
    assert (batch.size(), batch.closed()) == (len(built), True)
    return built


def pack(outputs: Sequence[Output]) -> PackedRecords:
    """What an engine packs, by aiokafka."""
    built, count = Producer().build_plainly(outputs)
    return PackedRecords(count, built[HEADER_BYTES:])


@pytest.mark.parametrize("is_transactional", [False, True])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [b"compressible" * 40, b"not"])
def test_packed_batch_is_as_aiokafka_builds_it(value: bytes, codec: str, *, is_transactional: bool) -> None:
    outputs = [Output(b"k1", value), Output(b"", b""), Output(b"gone", None)]
    producer: Any = Producer(codec, is_transactional=is_transactional)
    batch = PackedBatch(producer, pack(outputs))
    assert batch.record_count() == 3
    built = build(batch)
    assert built == producer.build_plainly(outputs)[0]
    read = DefaultRecordBatch(built)
    assert read.validate_crc()
    assert read.compression_type == (CODECS[codec] if len(value) > 3 else 0)
    assert (read.is_transactional, read.is_control_batch, read.timestamp_type) == (is_transactional, False, 0)
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == (70_000, 7, 2_000_000)
    assert [(record.offset, record.timestamp, record.key, record.value, list(record.headers)) for record in read] == [
        (offset, NOW_MS, output.key, output.value, []) for offset, output in enumerate(outputs)
    ]


def test_packed_batch_takes_no_further_record() -> None:
    producer: Any = Producer()
    batch = PackedBatch(producer, pack([Output(b"k", b"v")]))
    assert batch.append(timestamp=None, key=b"k", value=b"v") is None
    assert batch.record_count() == 1


def test_aiokafkas_batch_insists_on_its_own_builder() -> None:
    """The fact that forces the override: if this fails, aiokafka may not need it any more."""
    producer: Any = Producer()
    with pytest.raises(AssertionError):
        BatchBuilder._set_producer_state(PackedBatch(producer, pack([Output(b"k", b"v")])), 1, 1, 1)


def stage(entries: list[Entry]) -> tuple[PackableOutputs, PackableOutputs]:
    """The records as states and, with the null values empty, as transitions of the native engine."""
    native: Any = sys.modules[engine_class("native").__module__]
    core = native.Core(Rules(), {})
    for key, value in entries:
        core.stage(key, value)
        core.stage_transitions(key, [value or b""])
    states, transitions = (native.NativeOutputs(records) for records in core.outputs())
    return states, transitions


@given(ENTRIES, st.sampled_from(list(CODECS)), st.sampled_from([1, 100, 1_000, 20_000, 1 << 20]))
def test_native_engine_packs_as_aiokafka_does(entries: list[Entry], codec: str, batch_bytes_max: int) -> None:
    """A batch ends where the next record would make it larger than it may be; one record alone always fits."""
    producer: Any = Producer(codec, is_transactional=True, batch_bytes_max=batch_bytes_max)
    states, transitions = stage(entries)
    assert list(states) == [Output(key.encode(), value) for key, value in entries]
    assert list(transitions) == [Output(key.encode(), value or b"") for key, value in entries]
    for outputs in (states, transitions):
        begin = 0
        for packed in outputs.pack(records_bytes_max(producer)):
            built = build(PackedBatch(producer, packed))
            assert (built, packed.count) == producer.build_plainly(outputs[begin:])
            begin += packed.count
        assert begin == len(outputs)
