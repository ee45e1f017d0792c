"""Half a character, as a writer leaves it that cuts texts, costs that character and nothing else."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.envelope import LONG_BYTES
from consumer.core.escapes import JsonText
from consumer.core.reading import NoUpdate, Rejected
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode, identify
from consumer.core.surrogates import ESCAPES_MAX, replace_lone
from tests.core.play import play
from tests.outcomes import expect_applied
from tests.strategies import NESTED_TOPICS, OTHER_TOPICS, make_record

RULES = Rules()


def update(name: bytes, provider: bytes = b"x", key: bytes = b"zz") -> bytes:
    """A conversation update with texts as they stand on the wire: one that is not read, and one that is."""
    call = b'{"id":"m1","state":"connected","provider":"' + provider + b'"}'
    participant = b'{"id":"p1","name":"' + name + b'","' + key + b'":1,"calls":[' + call + b"]}"
    return b'{"topicName":"v2.users.u.conversations","eventBody":{"id":"c1","participants":[' + participant + b"]}}"


HALVES = [rb"Jo \ud83d", rb"\ud83d", rb"\ude00", rb"\uD83D x", rb"\uDE00\ud83d", rb"\ud83d\n", rb"\ud83d\ud83d\ude00"]


@pytest.mark.parametrize("half", HALVES)
def test_half_a_character_unread_costs_nothing(half: bytes) -> None:
    """In a name, in the name of a property and in a property's text within the text, the snapshot is applied."""
    for value in (update(half), update(b"x", key=half), update(rb"{\"a\":\"" + half + rb"\"}")):
        (outcome,) = play([make_record(value)]).outcomes
        assert outcome.disposition == "applied"
        assert expect_applied(outcome).stored == play([make_record(update(b"x"))]).known["c1"]


def test_half_a_character_in_a_long_value_costs_nothing() -> None:
    """It is looked for in a stage of its own."""
    filling = b"x" * LONG_BYTES
    (outcome,) = play([make_record(update(filling + rb"\ud83d"))]).outcomes
    assert expect_applied(outcome).stored == play([make_record(update(filling))]).known["c1"]


@pytest.mark.parametrize(
    ("wire", "read"),
    [
        (rb"Jo \ud83d", "Jo \ufffd"),
        (rb"\ude00 Jo", "\ufffd Jo"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\uD83D\uDE00\uD83D", "\U0001f600\ufffd"),
        (rb"\ude00\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\ude00\ude00", "\U0001f600\ufffd"),
        (rb"\udbff\udfff\udbff", "\U0010ffff\ufffd"),
        (rb"\ud83d\n\ude00", "\ufffd\n\ufffd"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\\\\ud83d\ude00", "\\\\ud83d\ufffd"),
        (rb"\\\\\ud83d\ude00 \ud83d", "\\\\\U0001f600 \ufffd"),
        (rb"\ud7ff\ue000 \ud800", "\ud7ff\ue000 \ufffd"),
    ],
)
def test_half_a_character_reads_as_the_replacement(wire: bytes, read: str) -> None:
    """Pairs stay, and so does what only looks like an escape behind a backslash that is escaped itself."""
    (communication,) = json.loads(play([make_record(update(b"x", wire))]).states["c1"])["participants"][0][
        "communications"
    ]
    assert communication["details"]["provider"] == read


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("wrong", [b"", b'"id":5,'])
def test_half_a_character_of_an_ignored_topic_is_ignored(half: bytes, wrong: bytes) -> None:
    """Also where the body cannot be decoded for another reason, before or after that half."""
    for body in (b"{" + wrong + b'"name":"' + half + b'"}', b'{"name":"' + half + b'",' + wrong + b'"zz":1}'):
        value = b'{"eventBody":' + body + b',"topicName":"' + OTHER_TOPICS[0].encode() + b'"}'
        assert decode(make_record(value), RULES) == NoUpdate("heartbeat")


@pytest.mark.parametrize("escape", [rb"\ud83", rb"\ud8zz", rb"\ud83d\ude0", rb"\ud83d\x", rb"\x \ud83d"])
def test_a_broken_escape_is_broken_json(escape: bytes) -> None:
    found = decode(make_record(update(escape)), RULES)
    assert isinstance(found, Rejected)
    assert found.reason == "bad_json"


def test_half_a_character_in_the_id_is_part_of_it() -> None:
    value = b'{"topicName":"' + NESTED_TOPICS[0].encode() + rb'","eventBody":{"id":"c\ud83d","participants":[]}}'
    record = make_record(value, key="c\ufffd")
    found, identity = decode(record, RULES), identify(record, RULES)
    assert isinstance(found, Snapshot)
    assert found.conversation_id == "c\ufffd"
    assert identity is not None
    assert identity.conversation_id == "c\ufffd"


@pytest.mark.parametrize(("count", "is_read"), [(ESCAPES_MAX, True), (ESCAPES_MAX + 1, False)])
def test_lone_surrogates_are_replaced_up_to_a_limit(count: int, is_read: bool) -> None:  # noqa: FBT001 - a column
    found = decode(make_record(update(rb"\ud83d" * count)), RULES)
    assert isinstance(found, Snapshot) == is_read


def test_a_value_without_halves_stays_as_it_is() -> None:
    for value in (b"", b"{}", update(b"x"), update(rb"\ud83d\ude00"), update(rb"\\u \n")):
        assert replace_lone(JsonText(value)) == value


@given(st.lists(st.sampled_from([rb"\ud83d", rb"\uDE00", rb"\\", rb"\"", rb"\u0041", rb"\udc00", b"u", b"d83d", b"x"])))
def test_replacing_agrees_with_a_lenient_decoder(escapes: list[bytes]) -> None:
    value = b'"' + b"".join(escapes) + b'"'
    with_halves = json.loads(value)
    assert {replace_lone(JsonText(value, piece_bytes)) for piece_bytes in range(1, 20)} == {
        replace_lone(JsonText(value))
    }
    assert msgspec.json.decode(replace_lone(JsonText(value))) == re.sub("[\ud800-\udfff]", "\ufffd", with_halves)
