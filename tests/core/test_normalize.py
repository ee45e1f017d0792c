"""Normalizing one participant: what depends on the record, and what is counted."""

import json
from typing import Any

import pytest
from msgspec import Raw, structs

from consumer.core.normalize import normalize
from consumer.core.timestamps import to_ms
from consumer.core.updates import ParticipantUpdate, combine
from schemas.state import Media
from tests.strategies import at


def read(participant: dict[str, Any], medium: Media | None = None, seconds: float = 0.0) -> ParticipantUpdate:
    """A participant in a snapshot at that time, with a tolerance of ten seconds."""
    return normalize(Raw(json.dumps(participant).encode()), medium, b"key", at(seconds), to_ms(at(seconds + 10)), 500)


def call(**members: Any) -> dict[str, Any]:
    return {"id": "p1", "calls": [{"id": "m1", "state": "connected", **members}]}


@pytest.mark.parametrize("padding", ["", "x" * 5_000], ids=["cached", "too long to cache"])
def test_a_time_too_far_in_the_future_depends_on_the_snapshot(padding: str) -> None:
    """The same bytes are read differently once the snapshot is newer, whether their result is cached or not."""
    participant = call(connectedTime=at(30), note=padding)
    for seconds, newest, implausible in ((0, "", 1), (20, at(30), 0), (0, "", 1)):
        update = read(participant, seconds=seconds)
        assert (update.newest, update.anomalies) == (newest, ("implausible_time",) * implausible)


def test_a_repeated_participant_is_the_same_object() -> None:
    assert read(call(held=True)) is read(call(held=True), seconds=5)


@pytest.mark.parametrize(
    ("participant", "medium", "anomalies"),
    [
        ({"calls": [{"id": "m1", "state": "connected"}]}, None, ("participant_without_id",)),
        ({"id": "p1", "calls": [{"state": "connected"}]}, None, ("communication_without_id",)),
        ({"id": "p1", "calls": [{"id": "m1"}, {"id": "m2"}]}, None, ("communication_without_state",) * 2),
        ({"id": "p1"}, "call", ("communication_without_state",)),
        ({"state": "connected"}, "call", ("participant_without_id",)),
        (call(state="vanished", disconnectType="vanished"), None, ("unknown_state", "unknown_disconnect_type")),
        (call(connectedTime="soon", disconnectedTime=0), None, ("implausible_time",) * 2),
        ({"id": "p1", "calls": [None]}, None, ()),
    ],
)
def test_anomalies_are_noted_once_per_occurrence(
    participant: dict[str, Any], medium: Media | None, anomalies: tuple[str, ...]
) -> None:
    assert read(participant, medium).anomalies == anomalies


def test_both_shapes_give_the_same_details() -> None:
    """But for what only one of them has: the communication id, and the session digest in its place."""
    leg = {"state": "DISCONNECTED", "disconnectType": "TRANSFER_CONSULT", "cobrowseSessionId": "s1", "provider": "x"}
    (nested,) = read({"id": "p1", "cobrowsesessions": [{"id": "m1", "disconnectedTime": at(4), **leg}]}).updates
    (flat,) = read({"id": "p1", "endTime": at(4), **leg}, "cobrowse").updates
    assert nested.details == flat.details
    assert nested.details.disconnect_type == "transfer.consult"
    assert (nested.version, nested.observations) == (flat.version, flat.observations)
    assert (nested.communication_id, nested.session_digest) == ("m1", None)
    assert (flat.communication_id, flat.session_digest) == (None, nested.details.cobrowse_session_digest)


def test_secrets_are_digested_or_dropped() -> None:
    session = {"id": "m1", "state": "connected", "cobrowseSessionId": "s1", "roomId": "r1", "viewerUrl": "https://v"}
    update = read({"id": "p1", "cobrowsesessions": [session]})
    (communication,) = update.updates
    assert communication.details.viewable
    assert not {"s1", "r1", "https://v"} & {str(value) for value in structs.astuple(communication.details)}


def test_combine_keeps_the_greater_value_and_all_communications() -> None:
    first, second = read(call() | {"userId": "u1"}), read(call(id="m2", state="vanished") | {"userId": "u2"})
    combined = combine([first, second])
    assert combined.details.user_id == "u2"
    assert combined.updates == (*first.updates, *second.updates)
    assert (combined.anomalies, combined.listed) == (("unknown_state",), 2)
