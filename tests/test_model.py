"""The reference model: the worked examples, independence of order, and JSON compared with msgspec."""

import copy
import json
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core import surrogates
from consumer.core.escapes import JsonText
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
    Snapshot,
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
    rows = []
    for transition in transitions:
        ms = text_ms(transition["eventTime"])
        assert ms is not None
        rows.append((transition["from"], transition["to"], (ms - BASE_MS) / 1000, transition["timeClass"]))
    return rows


@pytest.mark.parametrize("example", WORKED_EXAMPLES, ids=lambda example: example.name)
def test_worked_example_gives_its_transitions(example: Example) -> None:
    assert steps(standing(example.records, RULES)["c1"]) == list(example.standing)


@given(strategies.histories(), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(history: list[Record], chance: random.Random) -> None:
    shuffled = history + chance.sample(history, k=len(history) // 2)
    chance.shuffle(shuffled)
    assert conversations(shuffled, RULES) == conversations(history, RULES)
    assert standing(shuffled, RULES) == standing(history, RULES)


@given(strategies.histories())
def test_standing_transitions_are_a_consistent_log(history: list[Record]) -> None:
    for transitions in standing(history, RULES).values():
        log = [transition | {"op": "assert"} for transition in transitions]
        check_log(log)
        assert list(net(log).values()) == transitions


@given(strategies.histories())
def test_document_equals_the_encoded_state(history: list[Record]) -> None:
    """Decoding it into the published Struct and encoding that again changes nothing, so defaults are left out."""
    source = {"topic": "t", "partition": 0, "offset": 0}
    for document in conversations(history, RULES).values():
        encoded = json.dumps(document | {"source": source})
        state = msgspec.json.decode(encoded, type=ConversationState)
        assert json.loads(msgspec.json.encode(state)) == document | {"source": source}


@given(st.one_of(strategies.noise_records(), strategies.damaged_records, strategies.records()))
def test_every_record_has_a_verdict(record: Record) -> None:
    assert isinstance(judge(record, RULES), Ignored | Rejected | Snapshot)


def group_by_leg(transitions: list[Json]) -> dict[tuple[str, str, str], list[Json]]:
    """(participant, medium, communication) -> its transitions."""
    by_leg: dict[tuple[str, str, str], list[Json]] = defaultdict(list)
    for transition in transitions:
        by_leg[transition["participantId"], transition["media"], transition["communicationId"]].append(transition)
    return by_leg


@given(strategies.life_stories(("cobrowsesessions",)))
def test_provider_times_give_the_true_transitions(story: LifeStory) -> None:
    by_leg = group_by_leg(standing(story.records, RULES)["c1"])
    for leg, truth in story.truth.items():
        steps_in_ms = [(transition["to"], text_ms(transition["eventTime"])) for transition in by_leg[leg]]
        assert steps_in_ms == list(truth)


@given(strategies.life_stories())
def test_all_states_of_a_life_appear_in_order(story: LifeStory) -> None:
    by_leg = group_by_leg(standing(story.records, RULES)["c1"])
    for leg, truth in story.truth.items():
        assert [transition["to"] for transition in by_leg[leg]] == [state for state, _ in truth]


def make_decoder(participant: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """A decoder of `Payload` that decodes the participants in the same pass."""
    members: dict[str, Any] = {"participants": list[participant | None] | None}  # type: ignore[valid-type]

    def derive(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
        fields = [
            (field.name, members.get(field.name, field.type), msgspec.field(name=field.encode_name, default=None))
            for field in msgspec.structs.fields(struct)
        ]
        return msgspec.defstruct(struct.__name__, fields)

    members["event_body"] = derive(Conversation) | None
    members["detail"] = derive(Detail) | None
    return msgspec.json.Decoder(derive(Payload))


NESTED = make_decoder(Participant)
FLAT = make_decoder(FlatParticipant)


def read_with_model(value: bytes, participant: dict[str, Any]) -> tuple[Any, set[str]]:
    """The members that the model reads from a payload, and all faults in it."""
    try:
        tree = parse(value)
    except ValueError:
        return None, {"bad_json"}
    if not hasattr(tree, "last"):
        return None, {"wrong_type"}
    faults: list[str] = []
    return read(payload(participant), tree, faults), set(faults)


def read_with_msgspec(value: bytes, decoder: msgspec.json.Decoder[Any]) -> tuple[Any, str | None]:
    """The members that msgspec reads from a payload, without null and empty ones, and the first fault."""

    def drop_null(tree: Any) -> Any:
        match tree:
            case dict():
                return {name: drop_null(value) for name, value in tree.items() if value not in (None, "")}
            case list():
                return [drop_null(element) for element in tree]
        return tree or None if isinstance(tree, str) else tree

    try:
        decoded = decoder.decode(value)
    except msgspec.ValidationError as error:
        return None, "too_large" if "of length <=" in str(error) else "wrong_type"
    except msgspec.DecodeError:
        return None, "bad_json"
    except UnicodeDecodeError:
        return None, "bad_utf8"
    return drop_null(msgspec.to_builtins(decoded)), None


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
    expected, fault = read_with_msgspec(surrogates.replace_lone(JsonText(value)), decoder)
    members, faults = read_with_model(value, participant)
    if fault is None:
        assert (members, faults) == (expected, set())
    elif faults == {"bad_json"}:
        assert fault in {"bad_json", "wrong_type", "bad_utf8", "too_large"}
    else:
        assert fault in faults


def body(*participants: Any) -> Json:
    """The body of conversation `c1`."""
    return {"id": "c1", "participants": list(participants)}


def call(**members: Any) -> Json:
    """Participant `p1` with one call."""
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
        (b'{"id":"c2","zz":"' + b"[" * 300 + b'"}', Rejected("key_mismatch")),
        (b'{"id":"' + b"c" * 257 + b'"}', Rejected("too_large")),
        (websocket(USERS, body(call(peerId=strategies.LONGEST + "x"))), Rejected("too_large")),
        (b'{"topicName":"channel.metadata","a":' + b"[" * 256 + b"]" * 256 + b"}", Rejected("too_deep")),
        (b" " * 4_194_305, Rejected("too_large")),
        (websocket(USERS, {"id": "", "participants": []}), Rejected("no_conversation_id")),
        (websocket(USERS, None), Rejected("no_conversation_id")),
        ({}, Rejected("no_conversation_id")),
        (websocket(USERS, body(None, {"id": ""})), Rejected("nothing_usable")),
        (websocket(USERS, {"id": "c2"}), Rejected("key_mismatch")),
    ],
)
def test_unused_record_has_a_reason(document: Any, verdict: Ignored | Rejected) -> None:
    actual = judge(make_record(document), RULES)
    assert type(actual) is type(verdict)
    assert not isinstance(actual, Snapshot)
    assert actual.reason == verdict.reason


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
def test_update_is_used_in_every_envelope(document: Json) -> None:
    assert isinstance(judge(make_record(document), RULES), Snapshot)


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
def test_snapshot_time_is_the_first_plausible_one(header: bytes | None, timestamp: Any, seconds: int) -> None:
    record = make_record(
        strategies.eventbridge(USERS, body(), timestamp), seconds=3, headers=(("snapshot-time", header),)
    )
    verdict = judge(record, RULES)
    assert isinstance(verdict, Snapshot)
    assert verdict.snapshot_ms == BASE_MS + seconds * 1000


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 10**15])
def test_record_without_a_plausible_time_is_rejected(timestamp_ms: int) -> None:
    record = Record("t", 0, 0, timestamp_ms, b"c1", json.dumps(body()).encode())
    assert judge(record, RULES) == Rejected("no_time")


@pytest.mark.parametrize("key", [None, b"", b"c2"])
def test_key_mismatch_is_rejected(key: bytes | None) -> None:
    record = Record("t", 0, 0, BASE_MS, key, json.dumps(body()).encode())
    assert judge(record, RULES) == Rejected("key_mismatch")


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
def test_text_time_is_read_strictly(text: str, ms: int | None) -> None:
    assert text_ms(text) == ms


def cobrowse_flat(session: str | None, state: str = "connected") -> Json:
    """A flat co-browse notification with a session id."""
    participant = {"id": "p1", "state": state, "cobrowseSessionId": session}
    return websocket("v2.users.u1.conversations.cobrowseSessions", body(participant))


def cobrowse_nested(communication_id: str, session: str | None) -> Json:
    """A nested co-browse notification with a session id."""
    communication = {"id": communication_id, "state": "alerting", "cobrowseSessionId": session}
    return websocket(USERS, body({"id": "p1", "cobrowsesessions": [communication]}))


@pytest.mark.parametrize(
    ("documents", "matches"),
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
def test_flat_communication_is_matched(documents: list[Json], matches: list[tuple[str | None, str]]) -> None:
    state = conversations([make_record(document) for document in documents], RULES)["c1"]
    communications = state["participants"][0]["communications"]
    flat = [communication for communication in communications if "communicationId" not in communication]
    assert [(communication.get("joinedTo"), communication["standing"]) for communication in flat] == matches
    assert ["state" in communication for communication in flat] == [result == "alone" for _, result in matches]


def test_park_cycles_keep_the_first_and_the_latest() -> None:
    records = [
        make_record(
            websocket(USERS, body({"id": "p1", "messages": [{"id": "m1", "state": "parked", "parkTime": at(second)}]})),
            seconds=second,
        )
        for second in range(10)
    ]
    transitions = standing(records, Rules(park_cycles_max=3))["c1"]
    assert steps(transitions) == [(None, "parked", 0, "state")]
    kept = conversations(records, Rules(park_cycles_max=3))["c1"]["participants"][0]["communications"][0]["timeline"]
    assert [observation["cycle"] for observation in kept] == [at(0), at(8), at(9)]


def test_register_keeps_the_newest_value_of_every_detail() -> None:
    records = [
        make_record(websocket(USERS, body(call(held=True, muted=True) | {"purpose": "AGENT"})), seconds=1),
        make_record(websocket(USERS, body(call(held=False))), seconds=2),
    ]
    participant = conversations(records, RULES)["c1"]["participants"][0]
    assert participant["details"] == {"purpose": "agent"}
    assert participant["detailTimes"] == {"purpose": at(1)}
    communication = participant["communications"][0]
    assert communication["details"] == {"held": False, "muted": True}
    assert communication["version"] == {"rank": 1}, "the snapshot time is that of the participant"
    assert communication["detailVersions"] == {"muted": {"rank": 1, "snapshotTime": at(1)}}


def consistent_log() -> list[Json]:
    """Three standing assertions; the last is retracted and asserted again."""
    (life,) = (example for example in WORKED_EXAMPLES if example.name == "a life with the provider's times")
    transitions = [transition | {"op": "assert"} for transition in standing(life.records, RULES)["c1"]]
    last = transitions[-1]
    return [*transitions, last | {"op": "retract"}, last]


def test_consistent_log_passes() -> None:
    log = consistent_log()
    check_log(log)
    assert list(net(log)) == [operation["id"] for operation in log[:3]]
    assert list(net(log[:4])) == [operation["id"] for operation in log[:2]]
    assert set(net(log)[log[0]["id"]]) == set(STANDING_KEYS)


def swap_first_two(log: list[Json]) -> None:
    log[0], log[1] = log[1], log[0]


def assert_twice(log: list[Json]) -> None:
    log.insert(1, log[0])


def retract_unknown(log: list[Json]) -> None:
    log.insert(0, log[3])


def retract_twice(log: list[Json]) -> None:
    log.insert(4, log[3])


def retract_the_middle(log: list[Json]) -> None:
    log[3] = log[1] | {"op": "retract"}


def go_back_in_time(log: list[Json]) -> None:
    log[1]["eventTime"] = at(0)


def change_duration(log: list[Json]) -> None:
    log[1]["millisecondsInFrom"] += 1


def go_back_in_lifecycle(log: list[Json]) -> None:
    log[1] |= {"to": "terminated"}
    log[2] |= {"from": "terminated"}


def repeat_state(log: list[Json]) -> None:
    log[1] |= {"to": "alerting"}


def retract_other_values(log: list[Json]) -> None:
    log[3]["timeClass"] = "snapshot"


def rename_operation(log: list[Json]) -> None:
    log[0]["op"] = "revoke"


@pytest.mark.parametrize(
    "spoil",
    [
        swap_first_two,
        assert_twice,
        retract_unknown,
        retract_twice,
        retract_the_middle,
        go_back_in_time,
        change_duration,
        go_back_in_lifecycle,
        repeat_state,
        retract_other_values,
        rename_operation,
    ],
)
def test_inconsistent_log_fails(spoil: Callable[[list[Json]], None]) -> None:
    log = copy.deepcopy(consistent_log())
    spoil(log)
    with pytest.raises(AssertionError):
        check_log(log)


@pytest.mark.parametrize(
    "spoil",
    [
        swap_first_two,
        assert_twice,
        retract_unknown,
        retract_twice,
        retract_the_middle,
        go_back_in_time,
        retract_other_values,
    ],
)
def test_inconsistent_log_fails_with_parks_fall_out(spoil: Callable[[list[Json]], None]) -> None:
    """Operations may disappear from the middle only if the rest stays consistent."""
    log = copy.deepcopy(consistent_log())
    spoil(log)
    for offset, operation in enumerate(log):
        operation["source"] = {"offset": offset}
    with pytest.raises(AssertionError):
        check_log(log, parks_fall_out=True)
