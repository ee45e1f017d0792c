"""Every declared field is in the official models, under that name and with that type."""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import inbound
from schemas.inbound import (
    COBROWSE_LEFT_OUT,
    FLAT_COBROWSE_LEFT_OUT,
    Address,
    AfterCallWork,
    Call,
    Callback,
    Chat,
    CobrowseSession,
    Conversation,
    Detail,
    DisconnectReason,
    DivisionMembership,
    Email,
    ErrorInfo,
    FlatParticipant,
    InternalMessage,
    Message,
    Participant,
    Payload,
    Reference,
    RoutingData,
    ScreenMonitoring,
    Screenshare,
    SocialExpression,
    Transfer,
    TransferUser,
    Video,
    WireTime,
    Wrapup,
)

OFFICIAL = json.loads((Path(__file__).parent.parent / "data" / "event_models.json").read_text(encoding="utf-8"))
NESTED: dict[str, type[msgspec.Struct]] = {
    "Conversation": Conversation,
    "Participant": Participant,
    "Wrapup": Wrapup,
    "AfterCallWork": AfterCallWork,
    "Call": Call,
    "Callback": Callback,
    "Chat": Chat,
    "Cobrowse": CobrowseSession,
    "Email": Email,
    "InternalMessage": InternalMessage,
    "Message": Message,
    "ScreenMonitoring": ScreenMonitoring,
    "ScreenShare": Screenshare,
    "SocialExpression": SocialExpression,
    "Video": Video,
    "ErrorDetails": ErrorInfo,
    "DisconnectReason": DisconnectReason,
    "Address": Address,
    "TransferResponse": Transfer,
    "TransferInitiator": TransferUser,
    "TransferDestination": TransferUser,
}
SHARED: dict[str, type[msgspec.Struct]] = {
    "ConversationRoutingData": RoutingData,
    "ConversationDivisionMembership": DivisionMembership,
    "UriReference": Reference,
    "DomainEntityRef": Reference,
}
"""Of both shapes."""
FLAT: dict[str, type[msgspec.Struct]] = {
    "Conversation": Conversation,
    "Participant": FlatParticipant,
    "Wrapup": Wrapup,
    "ErrorBody": ErrorInfo,
}
ENVELOPES = (Detail, Payload)
STRUCTS = [
    struct
    for struct in vars(inbound).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and struct.__module__ == inbound.__name__
]
INTEGER = int | float | None
"""`WireInteger` as `get_type_hints` gives it."""
COMMUNICATION_BASES = {"Communication", "RoutedCommunication"}


def fields(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The declared types by name on the wire."""
    hints = typing.get_type_hints(struct)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)}


def official_names(declared: Any, names: Mapping[Any, set[str]]) -> Iterator[str]:
    """The official types that a declared type can hold; `names` gives those of Structs."""
    if declared in (WireTime, INTEGER):
        yield "datetime" if declared == WireTime else "int"
        return
    for member in (
        typing.get_args(declared) if typing.get_origin(declared) in {types.UnionType, typing.Union} else (declared,)
    ):
        if typing.get_origin(member) is list:
            yield from (f"list[{name}]" for name in official_names(typing.get_args(member)[0], names))
        elif member in names:
            yield from names[member]
        elif member is not types.NoneType:
            yield member.__name__


def names_of(structs: dict[str, type[msgspec.Struct]], participants: set[str]) -> dict[Any, set[str]]:
    """The official names by Struct. Participants are left as JSON."""
    names: dict[Any, set[str]] = {msgspec.Raw: participants}
    for name, struct in structs.items():
        names.setdefault(struct, set()).add(name)
    return names


NESTED_NAMES = names_of(NESTED | SHARED, {"Participant"})
FLAT_NAMES = names_of(
    FLAT | SHARED | {"TransferResponse": Transfer},
    {
        models["Conversation"]["participants"].removeprefix("list[").removesuffix("]")
        for models in OFFICIAL["flat"].values()
    },
)


@pytest.mark.parametrize("name", sorted(NESTED | SHARED))
def test_a_nested_model_declares_official_properties(name: str) -> None:
    official = (OFFICIAL["nested"] | OFFICIAL["shared"])[name] | OFFICIAL["rest"].get(name, {})
    for wire_name, declared in fields((NESTED | SHARED)[name]).items():
        assert official[wire_name] in set(official_names(declared, NESTED_NAMES)), wire_name


@pytest.mark.parametrize("name", sorted(FLAT))
def test_a_flat_model_declares_official_properties(name: str) -> None:
    """One Struct serves all media: every field belongs to some medium, and has one type in all that have it."""
    nested = OFFICIAL["nested"]["Conversation"] if name == "Conversation" else {}  # one Struct serves both shapes
    for wire_name, declared in fields(FLAT[name]).items():
        all_models = [(models | OFFICIAL["shared"])[name] for models in OFFICIAL["flat"].values()]
        known = {model[wire_name] for model in all_models if wire_name in model} or {nested.get(wire_name)} - {None}
        assert known, wire_name
        assert known <= set(official_names(declared, FLAT_NAMES)), wire_name


def test_every_struct_is_compared_to_a_model_or_an_envelope() -> None:
    checked = {*NESTED.values(), *SHARED.values(), *FLAT.values(), *ENVELOPES}
    assert {struct.__name__ for struct in STRUCTS if struct not in checked} == COMMUNICATION_BASES


def test_all_media_arrays_are_declared() -> None:
    declared = {
        name: next(official_names(hint, NESTED_NAMES))
        for name, hint in fields(Participant).items()
        if any(typing.get_origin(member) is list for member in typing.get_args(hint))
    }
    assert declared == {array: f"list[{model}]" for array, model in OFFICIAL["arrays"].items()}
    assert len(declared) == 11


@pytest.mark.parametrize(
    ("official", "declared", "left_out"),
    [
        (OFFICIAL["nested"]["Cobrowse"], fields(CobrowseSession), COBROWSE_LEFT_OUT),
        (
            OFFICIAL["flat"]["cobrowseSessions"]["Participant"],
            fields(FlatParticipant),
            FLAT_COBROWSE_LEFT_OUT,
        ),
    ],
    ids=["nested", "flat"],
)
def test_all_of_cobrowse_is_declared_or_left_out_with_a_reason(
    official: dict[str, str], declared: dict[str, Any], left_out: dict[str, str]
) -> None:
    assert official.keys() <= declared.keys() | left_out.keys()
    assert left_out.keys() <= official.keys()
    assert not declared.keys() & left_out.keys()
    assert all(left_out.values())


def test_flat_fields_of_other_media_are_the_known_ones() -> None:
    cobrowse = OFFICIAL["flat"]["cobrowseSessions"]["Participant"]
    roles = {f"{role}ParticipantId" for role in ("consult", "monitored", "coached", "barged")}
    others = {"muted", "type", "group", "callbackScheduledTime"} | roles
    assert fields(FlatParticipant).keys() - cobrowse.keys() == others


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_may_be_absent_or_null(struct: type[msgspec.Struct]) -> None:
    assert all(field.default is None for field in msgspec.structs.fields(struct))
    nulls = dict.fromkeys(fields(struct))
    assert msgspec.json.decode(b"{}", type=struct) == struct()
    assert msgspec.json.decode(msgspec.json.encode(nulls), type=struct) == struct()


@pytest.mark.parametrize("struct", ENVELOPES, ids=lambda struct: struct.__name__)
def test_the_envelopes_have_their_names_on_the_wire(struct: type[msgspec.Struct]) -> None:
    expected = {"topicName", "eventBody"}
    body = set(fields(Conversation))
    expected |= {"timestamp"} if struct is Detail else {"detail-type", "detail"} | body
    assert fields(struct).keys() == expected


def test_a_payload_may_have_unknown_members_of_any_type() -> None:
    assert msgspec.json.decode(b'{"new": [{"deep": null}], "version": 2}', type=Payload) == Payload()
