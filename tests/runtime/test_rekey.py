"""Where a copy begins, and under which key a record is copied."""

import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.runtime.rekey import Beginning, beginning
from consumer.runtime.republish import rekeyed


@pytest.mark.parametrize("is_target_empty", [True, False])
def test_what_was_begun_goes_on_where_it_was(is_target_empty: bool) -> None:  # noqa: FBT001 - a column
    found = beginning({0: 0, 1: 5}, {0: 7, 1: 5}, is_target_empty=is_target_empty)
    assert found == Beginning({0: 7, 1: 5}, is_new=False, lost=0)


def test_a_new_copy_begins_at_the_beginning_and_only_into_an_empty_topic() -> None:
    nothing = {0: None, 1: None}
    assert beginning({0: 3, 1: 0}, nothing, is_target_empty=True) == Beginning({0: 3, 1: 0}, is_new=True, lost=0)
    assert beginning({0: 3, 1: 0}, nothing, is_target_empty=False) is None


def test_a_partition_that_came_later_is_read_from_its_beginning() -> None:
    found = beginning({0: 0, 1: 2}, {0: 4, 1: None}, is_target_empty=False)
    assert found == Beginning({0: 4, 1: 2}, is_new=True, lost=0)


def test_what_retention_took_before_it_was_read_is_counted() -> None:
    assert beginning({0: 9, 1: 0}, {0: 4, 1: 1}, is_target_empty=False) == Beginning({0: 9, 1: 1}, False, 5)  # noqa: FBT003


@pytest.mark.parametrize(
    ("key", "value", "copied_key", "partition", "outcome"),
    [
        (None, b"no json", None, 2, "copied"),
        (b"other", b"no json", b"other", None, "copied"),
    ],
)
def test_a_record_without_a_readable_id_stays_as_it_is(
    key: bytes | None, value: bytes, copied_key: bytes | None, partition: int | None, outcome: str
) -> None:
    found = rekeyed(Record("a", 2, 5, 1_000, key, value, (("h", b"1"),)), "b", Rules())
    copy = found.copy
    assert (copy.topic, copy.key, copy.partition, found.outcome) == ("b", copied_key, partition, outcome)
    assert (copy.value, copy.timestamp_ms, copy.headers) == (value, 1_000, (("h", b"1"),))
