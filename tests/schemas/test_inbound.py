"""Every declared field stands in the official models, under that name and with that type."""

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
    AfterCallWork,
    Call,
    Callback,
    Chat,
    CobrowseSession,
    Conversation,
    Detail,
    Email,
    FlatParticipant,
    InternalMessage,
    Message,
    Participant,
    Payload,
    Reference,
    ScreenMonitoring,
    Screenshare,
    SocialExpression,
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
}
FLAT: dict[str, type[msgspec.Struct]] = {
    "Conversation": Conversation,
    "Participant": FlatParticipant,
    "Wrapup": Wrapup,
    "UriReference": Reference,
}
ENVELOPES = (Detail, Payload)
STRUCTS = [
    each
    for each in vars(inbound).values()
    if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == inbound.__name__
]
INTEGER = int | float | None
"""What is left of `WireInteger` as a hint."""
COMMUNICATION_BASES = {"Communication", "RoutedCommunication"}


def fields(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Name on the wire -> declared type."""
    hints = typing.get_type_hints(struct)
    return {each.encode_name: hints[each.name] for each in msgspec.structs.fields(struct)}


def official_names(declared: Any, names: Mapping[Any, set[str]]) -> Iterator[str]:
    """The official types that a declared type can hold; `names` gives those of Structs."""
    if declared in (WireTime, INTEGER):
        yield "datetime" if declared == WireTime else "int"
        return
    for member in typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,):
        if typing.get_origin(member) is list:
            yield from (f"list[{each}]" for each in official_names(typing.get_args(member)[0], names))
        elif member in names:
            yield from names[member]
        elif member is not types.NoneType:
            yield member.__name__


NESTED_NAMES: dict[Any, set[str]] = {struct: {name} for name, struct in NESTED.items()} | {msgspec.Raw: {"Participant"}}
FLAT_NAMES: dict[Any, set[str]] = {
    Reference: {"UriReference"},
    Wrapup: {"Wrapup"},
    msgspec.Raw: {
        each["Conversation"]["participants"].removeprefix("list[").removesuffix("]")
        for each in OFFICIAL["flat"].values()
    },
}


@pytest.mark.parametrize("name", sorted(NESTED))
def test_a_nested_model_declares_official_properties(name: str) -> None:
    official = OFFICIAL["nested"][name]
    for wire_name, declared in fields(NESTED[name]).items():
        assert set(official_names(declared, NESTED_NAMES)) == {official[wire_name]}, wire_name


@pytest.mark.parametrize("name", sorted(FLAT))
def test_a_flat_model_declares_official_properties(name: str) -> None:
    """One Struct serves all media: each field is a property of some medium, of one type wherever it is one."""
    for wire_name, declared in fields(FLAT[name]).items():
        known = {models[name][wire_name] for models in OFFICIAL["flat"].values() if wire_name in models[name]}
        assert known, wire_name
        assert known <= set(official_names(declared, FLAT_NAMES)), wire_name


def test_every_struct_is_held_against_a_model_or_an_envelope() -> None:
    checked = {*NESTED.values(), *FLAT.values(), *ENVELOPES}
    assert {each.__name__ for each in STRUCTS if each not in checked} == COMMUNICATION_BASES


def test_all_media_arrays_are_declared() -> None:
    declared = {
        name: next(official_names(hint, NESTED_NAMES))
        for name, hint in fields(Participant).items()
        if any(typing.get_origin(each) is list for each in typing.get_args(hint))
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
def test_all_of_a_cobrowse_session_is_declared_or_left_out_with_a_reason(
    official: dict[str, str], declared: dict[str, Any], left_out: dict[str, str]
) -> None:
    assert official.keys() <= declared.keys() | left_out.keys()
    assert left_out.keys() <= official.keys()
    assert not declared.keys() & left_out.keys()
    assert all(left_out.values())


def test_a_flat_field_that_cobrowse_lacks_belongs_to_another_medium() -> None:
    cobrowse = OFFICIAL["flat"]["cobrowseSessions"]["Participant"]
    assert fields(FlatParticipant).keys() - cobrowse.keys() == {"muted", "type"}


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_everything_may_be_absent_or_null(struct: type[msgspec.Struct]) -> None:
    assert all(each.default is None for each in msgspec.structs.fields(struct))
    nulls = dict.fromkeys(fields(struct))
    assert msgspec.json.decode(b"{}", type=struct) == struct()
    assert msgspec.json.decode(msgspec.json.encode(nulls), type=struct) == struct()


@pytest.mark.parametrize("struct", ENVELOPES, ids=lambda struct: struct.__name__)
def test_the_envelopes_have_their_names_on_the_wire(struct: type[msgspec.Struct]) -> None:
    expected = {"topicName", "eventBody"}
    expected |= {"timestamp"} if struct is Detail else {"detail-type", "detail", "id", "participants"}
    assert fields(struct).keys() == expected


def test_a_payload_reads_unknown_members_of_any_kind() -> None:
    assert msgspec.json.decode(b'{"new": [{"deep": null}], "version": 2}', type=Payload) == Payload()
