"""Published values: their names on the wire, which fields are omitted, and that all are documented."""

import re
import typing

import msgspec
import pytest

from schemas import state, transition
from schemas.state import (
    STATE_SCHEMA,
    SUMMARY_END,
    CommunicationDetails,
    CommunicationState,
    ConversationState,
    Media,
    Observation,
    ParticipantDetails,
    ParticipantState,
    Source,
    Standing,
    Summary,
    TimeClass,
    Version,
)
from schemas.transition import TRANSITION_SCHEMA, Context, Transition
from tests.strategies import MEDIA, at

SOURCE = Source("conversation-updates", 3, 42)
STRUCTS = [
    struct
    for module in (state, transition)
    for struct in vars(module).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and struct.__module__ == module.__name__
]


def test_the_smallest_state_is_written_as_documented() -> None:
    smallest = ConversationState(
        schema=STATE_SCHEMA,
        snapshot_time=at(1),
        live=0,
        communications={},
        live_since={},
        conversation_id="c1",
        source=SOURCE,
    )
    assert msgspec.json.encode(smallest) == (
        b'{"schema":1,"snapshotTime":"2026-01-01T10:00:01.000Z","live":0,"communications":{},"liveSince":{},'
        b'"conversationId":"c1","source":{"topic":"conversation-updates","partition":3,"offset":42}}'
    )


def test_a_state_is_written_as_documented() -> None:
    communication = CommunicationState(
        media="message",
        details=CommunicationDetails(held=False, controlling=[], after_call_work_state="pending"),
        version=Version(1, at(3), "", at(4)),
        timeline=[Observation("parked", 1, at(3), "state", at(3)), Observation("connected", 1, at(2), "snapshot")],
        communication_id="m1",
        state="connected",
        state_time=at(2),
        time_class="snapshot",
        began=at(1),
        live=True,
        detail_versions={"held": Version(0)},
    )
    participant = ParticipantState("p1", at(4), ParticipantDetails(user_id="u1"), [communication], {"userId": at(1)})
    assert msgspec.to_builtins(
        ConversationState(1, at(4), 1, {"message": {"connected": 1}}, {"message": [at(1)]}, "c1", SOURCE, [participant])
    ) == {
        "schema": 1,
        "conversationId": "c1",
        "snapshotTime": at(4),
        "live": 1,
        "communications": {"message": {"connected": 1}},
        "liveSince": {"message": [at(1)]},
        "source": {"topic": "conversation-updates", "partition": 3, "offset": 42},
        "participants": [
            {
                "participantId": "p1",
                "snapshotTime": at(4),
                "details": {"userId": "u1"},
                "detailTimes": {"userId": at(1)},
                "communications": [
                    {
                        "media": "message",
                        "communicationId": "m1",
                        "details": {"held": False, "controlling": [], "afterCallWorkState": "pending"},
                        "version": {"rank": 1, "cycle": at(3), "snapshotTime": at(4)},
                        "detailVersions": {"held": {"rank": 0}},
                        "timeline": [
                            {"state": "parked", "rank": 1, "time": at(3), "timeClass": "state", "cycle": at(3)},
                            {"state": "connected", "rank": 1, "time": at(2), "timeClass": "snapshot"},
                        ],
                        "state": "connected",
                        "stateTime": at(2),
                        "timeClass": "snapshot",
                        "began": at(1),
                        "live": True,
                    }
                ],
            }
        ],
    }


def test_a_transition_is_written_as_documented() -> None:
    first = Transition(
        schema=TRANSITION_SCHEMA,
        id="t1",
        op="assert",
        conversation_id="c1",
        participant_id="p1",
        communication_id=None,
        media="call",
        from_state=None,
        to_state="alerting",
        event_time=at(1),
        time_class="state",
        milliseconds_in_from=None,
        context=Context(),
        source=SOURCE,
    )
    assert msgspec.to_builtins(first) == {
        "schema": 1,
        "id": "t1",
        "op": "assert",
        "conversationId": "c1",
        "participantId": "p1",
        "communicationId": None,
        "media": "call",
        "from": None,
        "to": "alerting",
        "eventTime": at(1),
        "timeClass": "state",
        "millisecondsInFrom": None,
        "context": {},
        "source": {"topic": "conversation-updates", "partition": 3, "offset": 42},
    }


@pytest.mark.parametrize(
    ("struct", "written"),
    [
        (CommunicationDetails(), {}),
        (ParticipantDetails(), {}),
        (Context(purpose="agent"), {"purpose": "agent"}),
        (Version(0), {"rank": 0}),
        (Version(2, "", at(1), ""), {"rank": 2, "ownTime": at(1)}),
    ],
)
def test_fields_without_a_value_are_omitted(struct: msgspec.Struct, written: dict[str, object]) -> None:
    assert msgspec.to_builtins(struct) == written


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_names_on_the_wire_are_camel_case(struct: type[msgspec.Struct]) -> None:
    for field in msgspec.structs.fields(struct):
        assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", field.encode_name)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_struct_has_a_docstring(struct: type[msgspec.Struct]) -> None:
    assert struct.__doc__
    assert struct.__doc__.strip().endswith(".")


@pytest.mark.parametrize("struct", STRUCTS)
def test_values_are_frozen(struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.frozen


def test_versions_compare_field_by_field() -> None:
    ordered = [
        Version(0, "", at(9), at(9)),
        Version(1),
        Version(1, "", "", at(1)),
        Version(1, "", at(1)),
        Version(1, at(0)),
    ]
    assert sorted({*ordered}) == ordered


def test_literals_are_complete() -> None:
    assert set(typing.get_args(Media)) == set(MEDIA.values())
    assert typing.get_args(TimeClass) == ("provider", "state", "snapshot")
    assert typing.get_args(Standing) == ("alone", "joined", "ambiguous")


def test_a_state_survives_encoding_and_decoding() -> None:
    details, own = CommunicationDetails(muted=True), CommunicationDetails()
    communication = CommunicationState("call", details, Version(1), [], own_details=own)
    participant = ParticipantState("p1", at(1), ParticipantDetails(), [communication])
    before = ConversationState(
        schema=STATE_SCHEMA,
        snapshot_time=at(1),
        live=1,
        communications={},
        live_since={},
        conversation_id="c1",
        source=SOURCE,
        participants=[participant],
    )
    encoded = msgspec.json.encode(before)
    assert msgspec.json.encode(msgspec.json.decode(encoded, type=ConversationState)) == encoded
    assert b'"ownDetails":{}' in encoded


def test_a_summary_is_the_beginning_of_a_state() -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(ConversationState)]
    assert fields[: fields.index("conversationId")] == [field.encode_name for field in msgspec.structs.fields(Summary)]
    assert SUMMARY_END == b',"conversationId":'
