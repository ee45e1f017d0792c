"""Batches are compressed with zstd's level 1.

Level 3 takes a third more CPU for states and transitions, and does not make them smaller: records are short and alike.
"""

import sys
from functools import partial
from typing import Any

from aiokafka.codec import zstd_encode
from aiokafka.record import default_records

_LEVEL = 1


def install() -> None:
    """Make every producer of this process use that level. May be called again.

    Forced by: aiokafka has a setting for the codec, but none for its level.
    """
    in_c = sys.modules[default_records.DefaultRecordBatchBuilder.__module__]
    modules: list[Any] = [default_records, in_c]
    for module in modules:
        module.zstd_encode = partial(zstd_encode, level=_LEVEL)
