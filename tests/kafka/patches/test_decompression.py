"""A batch is decompressed up to a limit, whatever its codec; what is beyond it costs no memory and loses no record."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from consumer.kafka import patches
from consumer.kafka.patches import decompression, header_names
from consumer.kafka.patches.decompression import BatchTooLargeError
from consumer.settings import Settings
from tests.kafka.batches import (
    CODECS,
    COMPRESS,
    bomb,
    build_batch,
    builder,
    fetch,
    legacy_batch,
    read_offsets,
    records_of,
)

COMPRESSED = [name for name in COMPRESS if name != "none"]
LIMIT = 3 << 20
DEFAULT = Settings(bootstrap_servers="localhost:1").decompressed_bytes_max
BOMB_BYTES = 800_000_000
"""As many as 24 KB of zstd hold."""
GROWTH_BYTES_MAX = 300_000_000
"""Far more than reading up to the limit takes, and far less than the bomb."""


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    patches.install(LIMIT)
    yield
    patches.install(DEFAULT)


def decode(codec_name: str, content: bytes) -> bytes:
    return decompression.DECODERS[f"{codec_name.removeprefix('raw ')}_decode"](content)


def batch(base_offset: int, codec_name: str = "none", count: int = 3, size: int = 10) -> bytes:
    build = builder()
    for number in range(count):
        build.append(number, timestamp=0, key=b"k", value=b"v" * size, headers=[])
    content = COMPRESS[codec_name](records_of(build))
    return build_batch(base_offset, content, count, attributes=CODECS[codec_name.removeprefix("raw ")])


@pytest.mark.parametrize("codec_name", COMPRESSED)
@pytest.mark.parametrize("size", [1, 1_000, 1 << 20, (1 << 20) + 1, LIMIT])
def test_content_up_to_the_limit_is_decoded_as_aiokafka_does(codec_name: str, size: int) -> None:
    content = random.Random(size).randbytes(min(size, 10_000)) * (size // 10_000 + 1)
    compressed = COMPRESS[codec_name](content[:size])
    assert decode(codec_name, compressed) == content[:size]
    assert getattr(codec, f"{codec_name.removeprefix('raw ')}_decode")(compressed) == content[:size]


@pytest.mark.parametrize("codec_name", COMPRESSED)
def test_content_of_several_frames_is_decoded_as_aiokafka_does(codec_name: str) -> None:
    compressed = COMPRESS[codec_name](b"a" * 100) + COMPRESS[codec_name](b"b" * 100)
    try:
        expected = getattr(codec, f"{codec_name.removeprefix('raw ')}_decode")(compressed)
    except Exception:  # noqa: BLE001 - raw snappy has no frames, and aiokafka passes any error on
        with pytest.raises(CorruptRecordException):
            decode(codec_name, compressed)
    else:
        assert decode(codec_name, compressed) == expected


@pytest.mark.parametrize("codec_name", COMPRESSED)
def test_content_beyond_the_limit_is_refused(codec_name: str) -> None:
    with pytest.raises(decompression.TooLargeError) as refused:
        decode(codec_name, COMPRESS[codec_name](bytes(LIMIT + 1)))
    assert refused.value.bytes_min == LIMIT + 1


@pytest.mark.parametrize("codec_name", COMPRESSED)
def test_content_that_is_damaged_is_refused(codec_name: str) -> None:
    compressed = COMPRESS[codec_name](random.Random(1).randbytes(1_000))
    for damaged in (compressed[:-20], b"\xff" * 50):
        with pytest.raises(CorruptRecordException):
            decode(codec_name, damaged)


def test_block_of_negative_length_does_not_hang() -> None:
    compressed = codec.snappy_encode(b"a" * 100)
    for length in (-4, -1):
        with pytest.raises(CorruptRecordException):
            decode("snappy", compressed[:16] + length.to_bytes(4, "big", signed=True) + compressed[20:])
    with pytest.raises(CorruptRecordException):
        decode("snappy", compressed + b"\x00")


@pytest.mark.parametrize("codec_name", COMPRESSED)
def test_bomb_costs_no_memory(codec_name: str) -> None:
    """It is read in a process of its own, whose peak is what counts. Raw snappy is bombed with less, for this test."""
    content = bomb(codec_name, BOMB_BYTES if codec_name != "raw snappy" else BOMB_BYTES // 2)
    program = f"""
import resource, sys
from consumer.kafka import patches
from tests.kafka.batches import fetch
patches.install({DEFAULT})
content = sys.stdin.buffer.read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
try:
    next(fetch(content))
except Exception as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, timeout=300, check=True)
    before, kind, after = done.stdout.decode().split()
    assert kind == "BatchTooLargeError"
    assert (int(after) - int(before)) * 1_024 < GROWTH_BYTES_MAX


def test_memory_returns_after_a_batch_of_the_largest_size() -> None:
    before = resident_bytes()
    for codec_name in COMPRESSED:
        (record,) = fetch(bomb(codec_name, LIMIT - (1 << 20)))
        assert len(record.value) == LIMIT - (1 << 20)
        del record
    assert resident_bytes() - before < 10 * LIMIT


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("codec_name", COMPRESSED)
def test_records_before_and_after_are_not_lost(codec_name: str) -> None:
    """The fetch ends before the batch; the next one begins with it, and says what is known of it."""
    large = bomb(codec_name, LIMIT, 6)
    content = batch(0) + batch(3, codec_name) + large + batch(7)
    first = fetch(content)
    assert read_offsets(first) == [0, 1, 2, 3, 4, 5]
    assert first.next_fetch_offset == 6
    with pytest.raises(BatchTooLargeError) as refused:
        next(fetch(large + batch(7), 6))
    known = refused.value.batch
    assert (known.topic, known.partition, known.begin, known.end) == ("t", 0, 6, 7)
    assert (known.compressed_bytes, known.bytes_max, known.timestamp_ms) == (len(large), LIMIT, 0)
    assert known.bytes_min > LIMIT
    assert read_offsets(fetch(batch(7), 7)) == [7, 8, 9]


def test_reading_from_the_middle_of_a_batch_refuses_it() -> None:
    content = batch(0, "zstd", count=5, size=LIMIT // 4)
    with pytest.raises(BatchTooLargeError) as refused:
        next(fetch(content, 3))
    assert (refused.value.batch.begin, refused.value.batch.end) == (0, 5)


def test_batch_of_an_aborted_transaction_is_not_decompressed() -> None:
    fetched = fetch(bomb("zstd", LIMIT, 0, producer_id=7) + batch(1), aborted=[(7, 0)])
    assert read_offsets(fetched) == [1, 2, 3]


def test_batch_beside_a_header_name_that_is_not_utf_8_is_refused() -> None:
    """That name makes aiokafka's reader in Python read what follows."""
    build = builder()
    build.append(0, timestamp=0, key=b"k", value=b"v", headers=[("mark", b"")])
    content = build_batch(0, records_of(build).replace(b"mark", b"\xffark"), 1) + bomb("zstd", LIMIT, 1)
    fetched = fetch(content)
    assert read_offsets(fetched) == [0]
    with pytest.raises(BatchTooLargeError):
        next(fetch(content, 1))


def test_message_set_of_the_old_format_is_refused() -> None:
    content = legacy_batch(5, LIMIT)
    with pytest.raises(BatchTooLargeError) as refused:
        next(fetch(content, 5))
    assert (refused.value.batch.begin, refused.value.batch.end) == (5, 6)


@pytest.mark.parametrize("reader", decompression._READERS, ids=lambda reader: reader.__name__)
def test_aiokafka_looks_its_decoders_up(reader: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact that the patch depends on: its readers have no other way to decompress."""

    def fail(content: Any) -> bytes:
        raise NotImplementedError

    for name in decompression.DECODERS:
        codec_name = name.removesuffix("_decode")
        is_legacy = "legacy" in reader.__name__
        if is_legacy and codec_name == "zstd":  # which that format does not have
            continue
        content = legacy_batch(0, 10, codec_name) if is_legacy else batch(0, codec_name)
        with monkeypatch.context() as patched:
            patched.setattr(reader, name, fail)
            with pytest.raises(NotImplementedError):
                next(iter(open_batch(reader, content)))


def open_batch(reader: ModuleType, content: bytes) -> Any:
    if "legacy" in reader.__name__:
        legacy = reader.LegacyRecordBatch if "_crecords" in reader.__name__ else reader._LegacyRecordBatchPy
        return legacy(content, 1)
    current = reader.DefaultRecordBatch if "_crecords" in reader.__name__ else reader._DefaultRecordBatchPy
    return current(content)


def test_aiokafka_knows_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact that forces the patch: if this fails, aiokafka may not need it any more."""
    for reader in decompression._READERS:
        for name in decompression.DECODERS:
            if hasattr(reader, name):
                monkeypatch.setattr(reader, name, getattr(codec, name))
    monkeypatch.setattr(fetcher, "PartitionRecords", header_names.PartitionRecords)
    (record,) = fetch(bomb("zstd", 2 * LIMIT))
    assert len(record.value) == 2 * LIMIT
