"""What a lane stores with its committed offset comes back, and what others stored there does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.offset_metadata import Ends, OffsetMetadata, parse

COUNTS = st.none() | st.integers(0, 2**63 - 1)
ENDS = st.builds(Ends, COUNTS, COUNTS, COUNTS)
METADATA = st.builds(OffsetMetadata, COUNTS, COUNTS, ENDS, st.text("0123456789abcdef", max_size=32))


@given(METADATA)
def test_metadata_comes_back_as_it_was(metadata: OffsetMetadata) -> None:
    assert parse(metadata.text()) == metadata


@given(METADATA, st.text("xyz-= ", max_size=20))
def test_parts_of_another_tool_are_skipped(metadata: OffsetMetadata, foreign: str) -> None:
    assert parse(f"{metadata.text()} {foreign}") == metadata


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    parse(text)


@pytest.mark.parametrize("digits", ["", "-5", "5x", "1e3", "\u0665", "\u00b2"])
def test_number_that_is_none_is_unknown(digits: str) -> None:
    assert parse(f"stream-ms={digits} conversations=2") == OffsetMetadata(conversations=2)


@given(ENDS, ENDS)
def test_ends_advance_where_they_are_known(before: Ends, after: Ends) -> None:
    advanced = before.advance(after)
    for name in ("state", "transitions", "dead_letters"):
        newest = getattr(after, name)
        assert getattr(advanced, name) == (getattr(before, name) if newest is None else newest)
