"""Producers compress with zstd's level 1, whichever of aiokafka's builders they use."""

from typing import Any

import cramjam
import pytest
from aiokafka.codec import zstd_encode
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy

from consumer.kafka.patches import zstd_level

VALUE = b"".join(b'{"number":%d,"square":%d}' % (number, number * number) for number in range(2_000))
HEADER_BYTES = 61


def build(builder_class: Any, codec: int) -> bytes:
    builder = builder_class(2, codec, 0, -1, -1, 0, 1 << 20)
    builder.append(0, 1_000, b"k", VALUE, [])
    return bytes(builder.build())


@pytest.mark.parametrize("builder_class", [DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy])
def test_batch_is_compressed_with_level_1(builder_class: Any) -> None:
    zstd_level.install()
    built = build(builder_class, DefaultRecordBatch.CODEC_ZSTD)
    records = build(builder_class, DefaultRecordBatch.CODEC_NONE)[HEADER_BYTES:]
    assert built[HEADER_BYTES:] == bytes(cramjam.zstd.compress(records, level=1))
    (record,) = DefaultRecordBatch(built)
    assert record.value == VALUE


def test_aiokafka_compresses_with_level_3() -> None:
    """The fact that forces the patch: if this fails, aiokafka may not need it any more."""
    assert zstd_encode(VALUE) == bytes(cramjam.zstd.compress(VALUE, level=3)) != zstd_encode(VALUE, level=1)
