"""How deep a value nests and how much it holds, found without decoding it, and in time linear in its size."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.details import CONTROLLED_MAX
from consumer.core.escapes import JsonText
from consumer.core.extent import ELEMENTS_MAX, NESTING_MAX, find_excess
from consumer.core.outcomes import Outcome
from consumer.core.reading import Rejected
from consumer.core.rules import Rules
from consumer.core.snapshot import PARTICIPANTS_MAX, Snapshot, decode, identify
from consumer.core.step import step
from tests import model
from tests.outcomes import expect_dead_letter
from tests.strategies import NESTED_TOPICS, make_record, websocket

RULES = Rules()
texts = st.lists(st.sampled_from([*'[]{}",:\\', "\\\\", '\\"', "x", "\u00e9"]), max_size=12).map("".join)
documents: st.SearchStrategy[Any] = st.recursive(
    st.one_of(texts, st.integers(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)


@given(documents, texts, st.integers(NESTING_MAX - 6, NESTING_MAX + 1), st.sampled_from(["[%s]", '{"[":%s}']))
def test_any_json_is_as_deep_as_the_model_says(document: Any, text: str, outer: int, around: str) -> None:
    """Whatever its strings hold and wherever the deepest part is."""
    before, after = around.split("%s")
    inner = json.dumps([text, document, text], ensure_ascii=False)
    value = (before * outer + inner + after * outer).encode()
    assert (find_excess(JsonText(value)) == "too_deep") == (model.nesting(value) > NESTING_MAX)
    assert find_excess(JsonText(b"[" + b"[]," * NESTING_MAX + value + b"]")) == find_excess(
        JsonText(b"[" + value + b"]")
    )


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"[" * 200, b"]" * 200]), max_size=60))
def test_of_what_is_no_json_something_is_told(marks: list[bytes]) -> None:
    assert find_excess(JsonText(b"".join(marks))) in {None, "too_deep"}


@given(st.lists(st.sampled_from([*'[]{}",', "\\\\", '\\"', "x", "[" * 300, "]" * 300]), max_size=40), st.integers(1, 9))
def test_it_does_not_matter_where_a_value_is_cut(marks: list[str], piece_bytes: int) -> None:
    value = "".join(marks).encode()
    assert find_excess(JsonText(value, piece_bytes)) == find_excess(JsonText(value))


def make_value(elements: int, element: bytes = b"0") -> bytes:
    """A value with so many elements; the members around them are counted."""
    return b'{"id":"c1","participants":[],"zz":[' + b",".join([element] * (elements - 4)) + b"]}"


@pytest.mark.parametrize("element", [b"0", b"null", b'",[{"', rb'"\\\",["', b'"' + b"," * 100 + b'"'])
@pytest.mark.parametrize(("over", "reason"), [(0, ""), (1, "too_large")])
def test_elements_max(element: bytes, over: int, reason: str) -> None:
    """Elements count, and what stands within strings does not."""
    record = make_record(make_value(ELEMENTS_MAX + over, element))
    outcome = step(record, Rules(record_bytes_max=10**8), None, lambda _: None)
    assert outcome.reason == reason
    verdict = model.judge(record, model.Rules(record_bytes_max=10**8))
    assert isinstance(verdict, model.Rejected) == bool(over)
    if over:
        assert expect_dead_letter(outcome).detail == f"more than {ELEMENTS_MAX} elements"
        assert identify(record, RULES) is None


def test_a_text_full_of_commas_is_one_element() -> None:
    assert find_excess(JsonText(b'{"zz":"' + b"," * 4_000_000 + b'"}')) is None
    assert find_excess(JsonText(b'{"zz":"' + rb"\"[," * 1_000_000 + b'"}')) is None


def test_too_many_texts_are_too_many_elements() -> None:
    """But quotes alone are no texts: of what has few brackets and elements a parser says what is wrong."""
    assert find_excess(JsonText(b'"' * 1_000_000)) is None
    assert find_excess(JsonText(b"[" * (NESTING_MAX + 1) + b'"' * 1_000_000)) == "too_many"
    assert find_excess(JsonText(b"[" + b",".join([b'"["'] * 1_000_000) + b"]")) == "too_many"


@pytest.mark.parametrize("value", [b"[" * 4_000_000, b"[1,[" * 1_000_000, b"[" * 300 + b"]" * 4_000_000])
def test_what_is_deep_early_is_deep_however_long_it_is(value: bytes) -> None:
    assert find_excess(JsonText(value)) == "too_deep"


def process_listing(participants: int, key: str = "c1") -> Outcome:
    body = {"id": "c1", "participants": [{"id": f"p{number}"} for number in range(participants)]}
    return step(make_record(websocket(NESTED_TOPICS[0], body), key=key), RULES, None, lambda _: None)


def test_participants_max() -> None:
    assert process_listing(PARTICIPANTS_MAX).disposition == "applied"
    outcome = process_listing(PARTICIPANTS_MAX + 1)
    assert (outcome.reason, outcome.conversation_id) == ("too_large", "c1")
    assert (
        expect_dead_letter(outcome).detail
        == f"{PARTICIPANTS_MAX + 1} participants, at most {PARTICIPANTS_MAX} are read"
    )
    assert outcome.stream_ms is not None
    assert process_listing(PARTICIPANTS_MAX + 1, key="other").reason == "key_mismatch"


@pytest.mark.parametrize("entry", [None, {}, {"id": "m1"}, {"id": "m1", "state": "connected"}])
@pytest.mark.parametrize(("count", "is_read"), [(5, True), (6, False)])
def test_whatever_a_record_lists_counts(entry: Any, count: int, is_read: bool) -> None:  # noqa: FBT001 - a column
    """Entries without an id or a state cost time as well."""
    rules = Rules(communications_max=5)
    for who in ({"id": "p1", "calls": [entry] * count}, {"id": "p1", "calls": [entry] * count, "note": "x" * 5_000}):
        record = make_record({"id": "c1", "participants": [who]})
        found = decode(record, rules)
        assert isinstance(found, Snapshot)
        assert (found.excess == "") == is_read
        assert isinstance(model.judge(record, model.Rules(communications_max=5)), model.Snapshot) == is_read


@pytest.mark.parametrize("topic", [NESTED_TOPICS[0], "v2.users.u1.conversations.cobrowsesessions"])
@pytest.mark.parametrize(("count", "is_read"), [(CONTROLLED_MAX, True), (CONTROLLED_MAX + 1, False)])
def test_controlling_too_many_is_too_much(topic: str, count: int, is_read: bool) -> None:  # noqa: FBT001 - a column
    leg: dict[str, Any] = {"state": "connected", "controlling": [f"m{number}" for number in range(count)]}
    who = {"id": "p1", "cobrowsesessions": [leg | {"id": "m1"}]} if topic == NESTED_TOPICS[0] else leg | {"id": "p1"}
    record = make_record(websocket(topic, {"id": "c1", "participants": [who]}))
    assert (step(record, RULES, None, lambda _: None).disposition == "applied") == is_read
    assert isinstance(model.judge(record, model.Rules()), model.Snapshot) == is_read


def test_broken_participant_comes_before_too_many() -> None:
    record = make_record({"id": "c1", "participants": [{"id": 5}, {"id": "p1", "calls": [None] * 501}]})
    found = decode(record, RULES)
    assert isinstance(found, Rejected)
    assert found.reason == "wrong_type"
