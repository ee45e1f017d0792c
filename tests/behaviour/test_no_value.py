"""Values that mean no value: empty texts, nulls in lists, and properties that are not used."""

import json
from typing import Any

import pytest

from consumer.core.outcomes import Outcome
from consumer.core.reading import NoUpdate, Rejected
from consumer.core.rules import Rules
from consumer.core.snapshot import Snapshot, decode, identify
from tests import model
from tests.core.play import play
from tests.outcomes import expect_applied, expect_dead_letter
from tests.strategies import FLAT_TOPICS, NESTED_TOPICS, OTHER_TOPICS, at, eventbridge, make_record, websocket

RULES = Rules()
PARTICIPANT: dict[str, Any] = {"id": "p1", "purpose": "agent", "calls": [{"id": "m1", "state": "connected"}]}
BODY: dict[str, Any] = {"id": "c1", "participants": [PARTICIPANT]}
UNUSABLE: tuple[Any, ...] = (42, 4.2, True, [], {}, [{"id": 1}], "x", "")


def process(document: Any) -> Outcome:
    return play([make_record(document)]).outcomes[0]


@pytest.mark.parametrize("participants", [None, [], [None], [None, None]])
def test_participants_that_are_null_do_not_count(participants: Any) -> None:
    """A snapshot without participants is applied, in whatever form it shows that there are none."""
    outcome = process(websocket(NESTED_TOPICS[0], {"id": "c1", "participants": participants}))
    assert expect_applied(outcome).stored == expect_applied(process(websocket(NESTED_TOPICS[0], {"id": "c1"}))).stored


def test_participants_without_an_id_are_not_usable() -> None:
    outcome = process(websocket(NESTED_TOPICS[0], {"id": "c1", "participants": [None, {"id": ""}]}))
    assert (outcome.disposition, outcome.reason) == ("dead_lettered", "nothing_usable")


FRAMES = [
    (websocket(NESTED_TOPICS[0], BODY), ("id", "participants", "detail", "detail-type")),
    ({"eventBody": BODY}, ("id", "participants", "detail", "detail-type")),
    (eventbridge(NESTED_TOPICS[0], BODY, at(0)), ("id", "participants", "topicName", "eventBody", "detail-type")),
    (BODY, ("detail", "detail-type", "topicName", "eventBody")),
]


@pytest.mark.parametrize(
    ("frame", "name"),
    [(frame, name) for frame, names in FRAMES for name in names],
    ids=[f"{kind} {name}" for kind, (_, names) in enumerate(FRAMES) for name in names],
)
@pytest.mark.parametrize("wrong", UNUSABLE, ids=repr)
def test_a_property_that_is_not_used_cannot_be_wrong(frame: dict[str, Any], name: str, wrong: Any) -> None:
    """A property of another envelope, of any type, changes nothing, or only what the model says."""
    record = make_record(frame | {name: wrong})
    decoded, verdict = decode(record, RULES), model.judge(record, model.Rules())
    assert isinstance(decoded, Snapshot) == isinstance(verdict, model.Snapshot)
    if isinstance(decoded, Rejected):
        assert isinstance(verdict, model.Rejected)
        assert decoded.reason in verdict.reasons
    if frame is not BODY and not (name == "detail-type" and "detail" not in frame) and not isinstance(wrong, dict):
        assert decoded == decode(make_record(frame), RULES)
        assert identify(record, RULES) == identify(make_record(frame), RULES)


def test_an_envelope_whose_own_id_is_a_number_is_used() -> None:
    assert process(websocket(NESTED_TOPICS[0], BODY) | {"id": 42}).disposition == "applied"


@pytest.mark.parametrize("frame", [websocket(NESTED_TOPICS[0], BODY), eventbridge(NESTED_TOPICS[0], BODY)])
@pytest.mark.parametrize("name", ["id", "participants"])
def test_a_property_that_is_not_used_need_not_be_utf8(frame: dict[str, Any], name: str) -> None:
    value = json.dumps(frame | {name: "?"}).encode().replace(b'"?"', b'"\xff"')
    assert isinstance(decode(make_record(value), RULES), Snapshot)


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (websocket(NESTED_TOPICS[0], {"id": 42}) | {"id": 42}, "$.eventBody.id"),
        (eventbridge(NESTED_TOPICS[0], {"id": 42}) | {"id": 42}, "$.detail.eventBody.id"),
        (websocket(NESTED_TOPICS[0], {"id": "c1", "participants": {}}), "$.eventBody.participants"),
        ({"id": 42, "participants": []}, "$.id"),
        ({"topicName": 5, "id": "c1", "participants": []}, "$"),
        ({"detail-type": 5, "detail": {"eventBody": BODY}}, "$"),
        ({"detail-type": NESTED_TOPICS[0], "detail": 5}, "$.detail"),
    ],
)
def test_a_rejection_names_the_path_of_a_wrong_type(document: dict[str, Any], where: str) -> None:
    rejected = decode(make_record(document), RULES)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "wrong_type"
    assert where == "$" or rejected.where.endswith(f"`{where}`")


def test_another_topic_is_ignored_whatever_else_is_wrong() -> None:
    frame = {"topicName": OTHER_TOPICS[0], "eventBody": 5, "id": 42, "participants": "x"}
    assert decode(make_record(frame), RULES) == NoUpdate("heartbeat")
    event = {"detail": {"topicName": OTHER_TOPICS[0], "eventBody": 5}, "topicName": 5, "detail-type": 5}
    assert decode(make_record(event), RULES) == NoUpdate("heartbeat")


@pytest.mark.parametrize("wire", [b"12", b"12.0", b"1.2e1", b"12.000"])
def test_an_integer_may_be_written_as_a_fraction(wire: bytes) -> None:
    call = b'{"id":"m1","state":"disconnected","wrapup":{"durationSeconds":' + wire + b"}}"
    played = play([make_record(b'{"id":"c1","participants":[{"id":"p1","calls":[' + call + b"]}]}")])
    details = json.loads(played.states["c1"])["participants"][0]["communications"][0]["details"]
    assert details["wrapupDurationSeconds"] == 12
    assert b'"wrapupDurationSeconds":12}' in played.states["c1"]


@pytest.mark.parametrize("wire", [b"12.5", b"1e-1", b'"12"', b"true"])
def test_a_fraction_or_a_text_is_no_integer(wire: bytes) -> None:
    call = b'{"wrapup":{"durationSeconds":' + wire + b"}}"
    outcome = process(b'{"id":"c1","participants":[{"id":"p1","calls":[' + call + b"]}]}")
    assert (outcome.disposition, outcome.reason) == ("dead_lettered", "wrong_type")
    assert expect_dead_letter(outcome).detail.endswith("`$.calls[0].wrapup.durationSeconds`")


NESTED_TEXTS = ("purpose", "userId", "queueId", "teamId", "externalContactId")
LEG_TEXTS = {
    "initialState": "alerting", "provider": "x", "disconnectType": "peer", "peerId": "x", "cobrowseSessionId": "s1",
    "roomId": "r1", "cobrowseRole": "sharer", "viewerUrl": "x", "wrapup.code": "x", "afterCallWork.state": "pending",
    "connectedTime": at(1), "providerEventTime": at(1), "afterCallWork.startTime": at(1),
}  # fmt: skip
FLAT_TEXTS = ("user.id", "queue.id", "team.id", "externalContact.id", "direction", "peer", "startAcwTime", "endTime")


def add_member(members: dict[str, Any], name: str, text: str | None) -> dict[str, Any]:
    """Add a member, whose name may be a path of two."""
    outer, _, inner = name.partition(".")
    return members | {outer: {inner: text} if inner else text}


def update(kind: str, name: str, text: str | None) -> dict[str, Any]:
    """A conversation update with a text under some name."""
    leg: dict[str, Any] = {"id": "m1", "state": "connected"}
    if kind == "flat":
        body = {"id": "c1", "participants": [add_member({"id": "p1", "state": "connected"}, name, text)]}
        return websocket(FLAT_TOPICS[0], body)
    if kind == "leg":
        participant: dict[str, Any] = {"id": "p1", "cobrowsesessions": [add_member(leg, name, text)]}
    else:
        participant = add_member({"id": "p1", "calls": [leg]}, name, text)
    return websocket(NESTED_TOPICS[0], {"id": "c1", "participants": [participant]})


TEXTS = [
    *(("nested", name, "x") for name in NESTED_TEXTS),
    *(("leg", name, text) for name, text in LEG_TEXTS.items()),
    *(("flat", name, at(1) if name.endswith("Time") else "x") for name in FLAT_TEXTS),
]


@pytest.mark.parametrize(("kind", "name", "text"), TEXTS, ids=[f"{kind} {name}" for kind, name, _ in TEXTS])
def test_an_empty_text_replaces_nothing(kind: str, name: str, text: str) -> None:
    """It is like null: it erases nothing, and it is no anomaly."""
    first, empty, null = (
        make_record(update(kind, name, value), seconds=seconds, offset=seconds)
        for value, seconds in ((text, 1), ("", 2), (None, 2))
    )
    with_empty, with_null = play([first, empty]), play([first, null])
    assert with_empty.known["c1"].state == with_null.known["c1"].state
    assert with_empty.log == with_null.log
    assert with_empty.outcomes[1].anomalies == ()
    assert with_empty.documents() == model.conversations([first, empty], model.Rules())


def test_an_empty_user_id_erases_no_user() -> None:
    for user_id in ("", None):
        participants = [PARTICIPANT | {"userId": "u1"}, PARTICIPANT | {"userId": user_id}]
        played = play(
            make_record({"id": "c1", "participants": [participant]}, seconds=seconds, offset=seconds)
            for seconds, participant in enumerate(participants)
        )
        assert json.loads(played.states["c1"])["participants"][0]["details"]["userId"] == "u1"


def test_empty_ids_of_controlled_participants_do_not_count() -> None:
    leg = {"id": "m1", "state": "connected", "controlling": ["", None, "m2", ""]}
    played = play([make_record({"id": "c1", "participants": [{"id": "p1", "cobrowsesessions": [leg]}]})])
    details = json.loads(played.states["c1"])["participants"][0]["communications"][0]["details"]
    assert details["controlling"] == ["m2"]


@pytest.mark.parametrize("empty", [{"topicName": ""}, {"detail-type": ""}, {"topicName": "", "detail-type": ""}])
def test_an_empty_topic_counts_as_none(empty: dict[str, Any]) -> None:
    assert decode(make_record(empty | BODY), RULES) == decode(make_record(BODY), RULES)
    assert decode(make_record(empty | {"eventBody": BODY}), RULES) == decode(make_record({"eventBody": BODY}), RULES)
