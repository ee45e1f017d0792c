"""The reference model: the worked examples, order, and its reading of JSON held against msgspec's."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core import surrogates
from consumer.core.record import Record
from schemas.inbound import Conversation, Detail, FlatParticipant, Participant, Payload
from schemas.state import ConversationState
from tests import strategies
from tests.data.worked_examples import WORKED_EXAMPLES, Example
from tests.model import (
    FLAT_PARTICIPANT,
    NESTED_PARTICIPANT,
    STANDING_KEYS,
    Ignored,
    Rejected,
    Rules,
    Sight,
    check_log,
    conversations,
    judge,
    net,
    parse,
    payload,
    read,
    standing,
    text_ms,
)
from tests.strategies import BASE_MS, NESTED_TOPICS, Json, LifeStory, at, make_record, websocket

RULES = Rules()


def steps(transitions: list[Json]) -> list[tuple[str | None, str, float, str]]:
    """Transitions in the short form of the worked examples."""
    found = []
    for each in transitions:
        ms = text_ms(each["eventTime"])
        assert ms is not None
        found.append((each["from"], each["to"], (ms - BASE_MS) / 1000, each["timeClass"]))
    return found


@pytest.mark.parametrize("example", WORKED_EXAMPLES, ids=lambda example: example.name)
def test_a_worked_example_comes_out_as_written(example: Example) -> None:
    assert steps(standing(example.records, RULES)["c1"]) == list(example.standing)


@given(strategies.histories(), st.randoms(use_true_random=False))
def test_order_and_repetition_say_nothing(history: list[Record], chance: random.Random) -> None:
    shuffled = history + chance.sample(history, k=len(history) // 2)
    chance.shuffle(shuffled)
    assert conversations(shuffled, RULES) == conversations(history, RULES)
    assert standing(shuffled, RULES) == standing(history, RULES)


@given(strategies.histories())
def test_what_stands_is_a_right_log(history: list[Record]) -> None:
    for transitions in standing(history, RULES).values():
        log = [each | {"op": "assert"} for each in transitions]
        check_log(log)
        assert list(net(log).values()) == transitions


@given(strategies.histories())
def test_the_document_is_the_encoded_state(history: list[Record]) -> None:
    """Decoding it into the published Struct and encoding that again changes nothing, so defaults are left out."""
    source = {"topic": "t", "partition": 0, "offset": 0}
    for document in conversations(history, RULES).values():
        encoded = json.dumps(document | {"source": source})
        state = msgspec.json.decode(encoded, type=ConversationState)
        assert json.loads(msgspec.json.encode(state)) == document | {"source": source}


@given(st.one_of(strategies.noise_records(), strategies.damaged_records, strategies.records()))
def test_every_record_has_a_verdict(record: Record) -> None:
    assert isinstance(judge(record, RULES), Ignored | Rejected | Sight)


@given(strategies.life_stories(("cobrowsesessions",)))
def test_the_provider_tells_a_life_as_it_was(story: LifeStory) -> None:
    found = standing(story.records, RULES)["c1"]
    for leg, truth in story.truth.items():
        own = [each for each in found if (each["participantId"], each["media"], each["communicationId"]) == leg]
        assert [(each["to"], text_ms(each["eventTime"])) for each in own] == list(truth)


@given(strategies.life_stories())
def test_no_state_of_a_life_is_lost_or_misplaced(story: LifeStory) -> None:
    found = standing(story.records, RULES)["c1"]
    for leg, truth in story.truth.items():
        own = [each for each in found if (each["participantId"], each["media"], each["communicationId"]) == leg]
        assert [each["to"] for each in own] == [state for state, _ in truth]


def typed(participant: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """A decoder of `Payload` that reads the participants in the same pass."""
    members: dict[str, Any] = {"participants": list[participant | None] | None}  # type: ignore[valid-type]

    def having(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
        fields = [
            (each.name, members.get(each.name, each.type), msgspec.field(name=each.encode_name, default=None))
            for each in msgspec.structs.fields(struct)
        ]
        return msgspec.defstruct(struct.__name__, fields)

    members["event_body"] = having(Conversation) | None
    members["detail"] = having(Detail) | None
    return msgspec.json.Decoder(having(Payload))


NESTED = typed(Participant)
FLAT = typed(FlatParticipant)


def model_reading(value: bytes, participant: dict[str, Any]) -> tuple[Any, set[str]]:
    """What the model reads of such a payload, and the faults it finds."""
    try:
        tree = parse(value)
    except ValueError:
        return None, {"bad_json"}
    if not hasattr(tree, "last"):
        return None, {"wrong_type"}
    faults: list[str] = []
    return read(payload(participant), tree, faults), set(faults)


def msgspec_reading(value: bytes, decoder: msgspec.json.Decoder[Any]) -> tuple[Any, str | None]:
    """What msgspec reads of such a payload, members that say nothing left out, and the first fault it finds."""

    def without_null(tree: Any) -> Any:
        match tree:
            case dict():
                return {name: without_null(each) for name, each in tree.items() if each not in (None, "")}
            case list():
                return [without_null(each) for each in tree]
        return tree or None if isinstance(tree, str) else tree

    try:
        decoded = decoder.decode(value)
    except msgspec.ValidationError:
        return None, "wrong_type"
    except msgspec.DecodeError:
        return None, "bad_json"
    except UnicodeDecodeError:
        return None, "bad_utf8"
    return without_null(msgspec.to_builtins(decoded)), None


@pytest.mark.parametrize(("decoder", "participant"), [(NESTED, NESTED_PARTICIPANT), (FLAT, FLAT_PARTICIPANT)])
@given(
    value=st.one_of(
        strategies.values,
        strategies.damaged(strategies.values),
        strategies.noise_records().map(lambda record: record.value or b""),
    ).filter(lambda value: b"[" * 1000 not in value)
)
def test_json_is_read_as_msgspec_reads_it(
    decoder: msgspec.json.Decoder[Any], participant: dict[str, Any], value: bytes
) -> None:
    expected, fault = msgspec_reading(surrogates.replace_lone(value), decoder)
    found, faults = model_reading(value, participant)
    if fault is None:
        assert (found, faults) == (expected, set())
    elif faults == {"bad_json"}:
        assert fault in {"bad_json", "wrong_type", "bad_utf8"}
    else:
        assert fault in faults


def body(*participants: Any) -> Json:
    """The body of conversation `c1`."""
    return {"id": "c1", "participants": list(participants)}


def call(**members: Any) -> Json:
    """A participant with one call."""
    return {"id": "p1", "calls": [{"id": "m1", "state": "connected"} | members]}


USERS = NESTED_TOPICS[0]
FLAT_CALLS = "v2.users.u1.conversations.calls"


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (websocket("channel.metadata", 5), Ignored("heartbeat")),
        (websocket("V2.System.x", None), Ignored("system")),
        (websocket("v2.users.u1.conversations.internalmessages", body()), Ignored("other_topic")),
        (websocket("v2.conversations.u1.transcription", {"id": 5}), Ignored("other_topic")),
        ({"result": "200", "status": "subscribed"}, Ignored("subscription_reply")),
        (body({"id": "p1", "state": "connected"}), Ignored("bare_flat")),
        (b"{", Rejected("bad_json")),
        (b'{"topicName":"channel.metadata","eventBody":NaN}', Rejected("bad_json")),
        (b'{"id":"\xff"}', Rejected("bad_utf8")),
        (b"[]", Rejected("wrong_type")),
        (websocket(USERS, body(call(held=1))), Rejected("wrong_type")),
        (websocket(USERS, body(call(connectedTime=True))), Rejected("wrong_type")),
        (websocket(USERS, body({"id": "p1", "calls": {}})), Rejected("wrong_type")),
        (websocket(FLAT_CALLS, body({"id": "p1", "user": "u"})), Rejected("wrong_type")),
        (b'{"a":' * 257 + b"1" + b"}" * 257, Rejected("too_deep")),
        (b'{"a":' * 256 + b"1" + b"}" * 256, Rejected("no_conversation_id")),
        (b'{"id":"' + b"[" * 300 + b'"}', Rejected("key_mismatch")),
        (b'{"topicName":"channel.metadata","a":' + b"[" * 256 + b"]" * 256 + b"}", Rejected("too_deep")),
        (b" " * 4_194_305, Rejected("too_large")),
        (websocket(USERS, {"id": "", "participants": []}), Rejected("no_conversation_id")),
        (websocket(USERS, None), Rejected("no_conversation_id")),
        ({}, Rejected("no_conversation_id")),
        (websocket(USERS, body(None, {"id": ""})), Rejected("nothing_usable")),
        (websocket(USERS, {"id": "c2"}), Rejected("key_mismatch")),
    ],
)
def test_a_record_that_is_not_used_says_why(document: Any, verdict: Ignored | Rejected) -> None:
    found = judge(make_record(document), RULES)
    assert type(found) is type(verdict)
    assert not isinstance(found, Sight)
    assert found.reason == verdict.reason


@pytest.mark.parametrize(
    "document",
    [
        body(call()),
        {"eventBody": body(call())},
        websocket(USERS, body(call())),
        strategies.eventbridge(USERS, body(call())),
        {"detail-type": "v2.users.{id}.conversations", "detail": {"eventBody": body(call())}, "id": "e1"},
        body({"id": "p1", "calls": [], "state": "connected"}),
        body(),
        {"id": "c1"},
    ],
)
def test_a_conversation_update_is_used_in_every_envelope(document: Json) -> None:
    assert isinstance(judge(make_record(document), RULES), Sight)


@pytest.mark.parametrize(
    ("header", "timestamp", "seconds"),
    [
        (str(BASE_MS + 1000).encode(), at(2), 1),
        (b"1000", at(2), 2),
        (b"soon", BASE_MS + 2000, 2),
        (None, at(3 + 86_400), 3 + 86_400),
        (None, at(4 + 86_400), 3),
        (str(BASE_MS + 3001 + 86_400_000).encode(), None, 3),
    ],
)
def test_the_snapshot_time_is_the_first_plausible_one(header: bytes | None, timestamp: Any, seconds: int) -> None:
    record = make_record(
        strategies.eventbridge(USERS, body(), timestamp), seconds=3, headers=(("snapshot-time", header),)
    )
    found = judge(record, RULES)
    assert isinstance(found, Sight)
    assert found.snapshot_ms == BASE_MS + seconds * 1000


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 10**15])
def test_a_record_without_a_plausible_time_is_rejected(timestamp_ms: int) -> None:
    record = Record("t", 0, 0, timestamp_ms, b"c1", json.dumps(body()).encode())
    assert judge(record, RULES) == Rejected("no_time")


@pytest.mark.parametrize("key", [None, b"", b"c2"])
def test_a_key_that_differs_may_be_allowed(key: bytes | None) -> None:
    record = Record("t", 0, 0, BASE_MS, key, json.dumps(body()).encode())
    assert judge(record, RULES) == Rejected("key_mismatch")
    assert isinstance(judge(record, Rules(key_mismatch="apply")), Sight)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01 00:00:01.9", 1900),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:30:00-0030", 0),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000 - 86_340_000),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01T00:00Z", None),
        ("1970-01-01T00:00:60Z", None),
        ("1970-01-01T00:00:00.1234567890Z", None),
        ("1970-01-01T00:00:00z", None),
        ("1970-01-01T00:00:00+24:00", None),
        ("1970-01-01T00:00:00Z\n", None),
    ],
)
def test_a_time_as_text_is_read_strictly(text: str, ms: int | None) -> None:
    assert text_ms(text) == ms


def cobrowse_flat(session: str | None, state: str = "connected") -> Json:
    """A flat co-browse notification that shows the session's id."""
    participant = {"id": "p1", "state": state, "cobrowseSessionId": session}
    return websocket("v2.users.u1.conversations.cobrowseSessions", body(participant))


def cobrowse_nested(communication_id: str, session: str | None) -> Json:
    """A nested co-browse notification that shows the session's id."""
    shown = {"id": communication_id, "state": "alerting", "cobrowseSessionId": session}
    return websocket(USERS, body({"id": "p1", "cobrowsesessions": [shown]}))


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([cobrowse_flat("s1")], [(None, "alone")]),
        ([cobrowse_flat(None)], [(None, "alone")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", "s1")], [("m1", "joined")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", None)], [("m1", "joined")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", "s2")], [(None, "alone")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", "s2"), cobrowse_nested("m2", None)], [("m2", "joined")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", "s1"), cobrowse_nested("m2", None)], [("m1", "joined")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", "s1"), cobrowse_nested("m2", "s1")], [(None, "ambiguous")]),
        ([cobrowse_flat("s1"), cobrowse_nested("m1", None), cobrowse_nested("m2", None)], [(None, "ambiguous")]),
        ([cobrowse_flat(None), cobrowse_nested("m1", "s1")], [("m1", "joined")]),
        ([cobrowse_flat(None), cobrowse_nested("m1", "s1"), cobrowse_nested("m2", None)], [(None, "ambiguous")]),
    ],
)
def test_a_flat_communication_finds_its_place(documents: list[Json], found: list[tuple[str | None, str]]) -> None:
    state = conversations([make_record(each) for each in documents], RULES)["c1"]
    communications = state["participants"][0]["communications"]
    flat = [each for each in communications if "communicationId" not in each]
    assert [(each.get("joinedTo"), each["standing"]) for each in flat] == found
    assert [("state" in each) for each in flat] == [standing_ == "alone" for _, standing_ in found]


def test_park_cycles_keep_the_first_and_the_latest() -> None:
    shown = [
        make_record(
            websocket(USERS, body({"id": "p1", "messages": [{"id": "m1", "state": "parked", "parkTime": at(each)}]})),
            seconds=each,
        )
        for each in range(10)
    ]
    transitions = standing(shown, Rules(park_cycles_max=3))["c1"]
    assert steps(transitions) == [(None, "parked", 0, "state")]
    kept = conversations(shown, Rules(park_cycles_max=3))["c1"]["participants"][0]["communications"][0]["timeline"]
    assert [each["cycle"] for each in kept] == [at(0), at(8), at(9)]


def test_a_register_keeps_the_newest_and_does_not_forget() -> None:
    shown = [
        make_record(websocket(USERS, body(call(held=True, muted=True) | {"purpose": "AGENT"})), seconds=1),
        make_record(websocket(USERS, body(call(held=False))), seconds=2),
    ]
    participant = conversations(shown, RULES)["c1"]["participants"][0]
    assert participant["details"] == {"purpose": "agent"}
    assert participant["detailTimes"] == {"purpose": at(1)}
    communication = participant["communications"][0]
    assert communication["details"] == {"held": False, "muted": True}
    assert communication["version"] == {"rank": 1}, "the snapshot time is that of the participant"
    assert communication["detailVersions"] == {"muted": {"rank": 1, "snapshotTime": at(1)}}


def right_log() -> list[Json]:
    """Three assertions that stand, with a correction of the last."""
    (life,) = (each for each in WORKED_EXAMPLES if each.name == "a life told by the provider")
    transitions = [each | {"op": "assert"} for each in standing(life.records, RULES)["c1"]]
    last = transitions[-1]
    return [*transitions, last | {"op": "retract"}, last]


def test_a_right_log_passes() -> None:
    log = right_log()
    check_log(log)
    assert list(net(log)) == [each["id"] for each in log[:3]]
    assert list(net(log[:4])) == [each["id"] for each in log[:2]]
    assert set(net(log)[log[0]["id"]]) == set(STANDING_KEYS)


def swap(log: list[Json]) -> None:
    log[0], log[1] = log[1], log[0]


def twice(log: list[Json]) -> None:
    log.insert(1, log[0])


def retract_unknown(log: list[Json]) -> None:
    log.insert(0, log[3])


def retract_twice(log: list[Json]) -> None:
    log.insert(4, log[3])


def retract_the_middle(log: list[Json]) -> None:
    log[3] = log[1] | {"op": "retract"}


def back_in_time(log: list[Json]) -> None:
    log[1]["eventTime"] = at(0)


def wrong_duration(log: list[Json]) -> None:
    log[1]["millisecondsInFrom"] += 1


def back_in_lifecycle(log: list[Json]) -> None:
    log[1] |= {"to": "terminated"}
    log[2] |= {"from": "terminated"}


def nothing_changed(log: list[Json]) -> None:
    log[1] |= {"to": "alerting"}


def other_values(log: list[Json]) -> None:
    log[3]["timeClass"] = "snapshot"


def unknown_operation(log: list[Json]) -> None:
    log[0]["op"] = "revoke"


@pytest.mark.parametrize(
    "spoil",
    [
        swap,
        twice,
        retract_unknown,
        retract_twice,
        retract_the_middle,
        back_in_time,
        wrong_duration,
        back_in_lifecycle,
        nothing_changed,
        other_values,
        unknown_operation,
    ],
)
def test_a_wrong_log_is_found_out(spoil: Callable[[list[Json]], None]) -> None:
    log = copy.deepcopy(right_log())
    spoil(log)
    with pytest.raises(AssertionError):
        check_log(log)


@pytest.mark.parametrize(
    "spoil", [swap, twice, retract_unknown, retract_twice, retract_the_middle, back_in_time, other_values]
)
def test_a_log_with_parks_that_fell_out_is_checked_too(spoil: Callable[[list[Json]], None]) -> None:
    """After each record; a part that is missing in the middle is none that fell out unless the rest joins."""
    log = copy.deepcopy(right_log())
    spoil(log)
    for offset, operation in enumerate(log):
        operation["source"] = {"offset": offset}
    with pytest.raises(AssertionError):
        check_log(log, parks_fall_out=True)
