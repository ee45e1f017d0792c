"""Where two documents differ, by path, with both sides."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.record import Record
from consumer.tools.differences import Difference, compare
from tests.core.play import play
from tests.strategies import FEWER, histories

DOCUMENTS = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "media", "state")), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("published", "recomputed", "differences"),
    [
        ({"live": 1}, {"live": 2}, [("live", 1, 2)]),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, [("a.b", 1, None), ("a.c", None, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
        (
            {"p": [{"participantId": "x", "n": 1}, {"participantId": "y", "n": 1}]},
            {"p": [{"participantId": "y", "n": 2}]},
            [("p[x]", {"participantId": "x", "n": 1}, None), ("p[y].n", 1, 2)],
        ),
        (
            {"timeline": [{"state": "connected", "time": "1"}]},
            {"timeline": [{"state": "connected", "time": "2"}]},
            [("timeline[connected].time", "1", "2")],
        ),
        (
            {"t": [{"state": "a", "time": "1"}, {"state": "a", "time": "2"}]},
            {"t": [{"state": "a", "time": "1"}]},
            [("t[a#2]", {"state": "a", "time": "2"}, None)],
        ),
        (None, {"a": 1}, [("", None, {"a": 1})]),
    ],
)
def test_a_difference_has_a_path_and_both_sides(
    published: Any, recomputed: Any, differences: list[tuple[str, Any, Any]]
) -> None:
    assert list(compare(published, recomputed)) == [Difference(*fields) for fields in differences]


@given(DOCUMENTS, DOCUMENTS)
def test_only_documents_that_differ_have_differences(published: Any, recomputed: Any) -> None:
    assert bool(list(compare(published, recomputed))) == (published != recomputed)
    assert not list(compare(published, published))


@FEWER
@given(histories(), histories())
def test_differences_of_two_states_have_distinct_paths(history: list[Record], other: list[Record]) -> None:
    one, two = (
        {key: msgspec.json.decode(state) for key, state in play(records).states.items()} for records in (history, other)
    )
    for key in one.keys() & two.keys():
        paths = [difference.path for difference in compare(one[key], two[key])]
        assert len(paths) == len(set(paths))
        assert bool(paths) == (one[key] != two[key])
