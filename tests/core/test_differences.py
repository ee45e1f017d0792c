"""Where two documents differ: by path, and told with both sides."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.differences import Differing, differing
from consumer.core.record import Record
from tests.core.play import play
from tests.strategies import histories

DOCUMENTS = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "media", "state")), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("published", "recomputed", "found"),
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
def test_a_difference_is_told_where_it_is(published: Any, recomputed: Any, found: list[tuple[str, Any, Any]]) -> None:
    assert list(differing(published, recomputed)) == [Differing(*each) for each in found]


@given(DOCUMENTS, DOCUMENTS)
def test_there_are_differences_exactly_where_documents_differ(published: Any, recomputed: Any) -> None:
    assert bool(list(differing(published, recomputed))) == (published != recomputed)
    assert not list(differing(published, published))


@settings(max_examples=60)
@given(histories(), histories())
def test_every_path_in_two_states_is_told_once(history: list[Record], other: list[Record]) -> None:
    here, there = (
        {key: msgspec.json.decode(state) for key, state in play(each).states.items()} for each in (history, other)
    )
    for key in here.keys() & there.keys():
        paths = [each.path for each in differing(here[key], there[key])]
        assert len(paths) == len(set(paths))
        assert bool(paths) == (here[key] != there[key])
