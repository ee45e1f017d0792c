"""Framed traffic is the same traffic: records within frames are what they are without, and broken ones stay broken."""

from itertools import islice

import pytest
from msgspec.structs import replace

from consumer.core.framing import FRAMINGS
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import Decoded, Snapshot, decode
from consumer.simulator.relay import FRAMES, frame
from consumer.simulator.traffic import Draft, Traffic, records
from tests.strategies import TOPIC

DRAFTS = list(islice(records(Traffic(seed=4, broken=0.1, ignorable=0.1)), 400))
SEVERAL = ("confluent", "byte_order_mark", "connect", "key_confluent", "key_text")


def judge(draft: Draft) -> tuple[Decoded, tuple[str, ...]]:
    """What a record is, without its frames and what else it holds; and its frames."""
    decoded = decode(Record(TOPIC, 0, 0, draft.timestamp_ms, draft.key, draft.value, draft.headers), Rules())
    if isinstance(decoded, Snapshot):
        return replace(decoded, framings=(), others=()), decoded.framings
    return decoded, ()


def test_every_frame_that_is_understood_can_be_generated() -> None:
    assert set(FRAMES) == set(FRAMINGS)


@pytest.mark.parametrize("frames", [*((name,) for name in FRAMES), SEVERAL], ids=" ".join)
def test_framed_records_are_judged_as_the_plain_ones(frames: tuple[str, ...]) -> None:
    for draft, framed in zip(DRAFTS, frame(DRAFTS, frames), strict=True):
        judged, framings = judge(framed)
        if draft.broken:
            assert not isinstance(judged, Snapshot)
        else:
            expected, _ = judge(draft)
            assert judged == expected
            assert framings == (frames if isinstance(expected, Snapshot) else ())


def test_no_frames_change_nothing() -> None:
    assert list(frame(DRAFTS, [])) == DRAFTS
