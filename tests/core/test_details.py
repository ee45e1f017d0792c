"""Which details are read of the wire, and in what form they are kept."""

import json
from typing import Any

import pytest

from consumer.core.record import Record
from consumer.core.rules import Rules
from tests.core.play import play
from tests.strategies import NESTED_TOPICS, at, make_record, websocket

KEYED = Rules(digest_key=b"key")
ADDRESS = {"name": "Private", "addressNormalized": "tel:+15550100", "addressRaw": "+1 555 0100"}


def conversation(body: dict[str, Any], seconds: float = 0.0, topic: str = NESTED_TOPICS[0]) -> Record:
    return make_record(websocket(topic, {"id": "c1"} | body), seconds=seconds, offset=round(seconds))


def leg(array: str, members: dict[str, Any], seconds: float = 0.0) -> Record:
    communication = {"id": "m1", "state": "connected"} | members
    return conversation({"participants": [{"id": "p1", array: [communication]}]}, seconds)


def document(*records: Record, rules: Rules | None = None) -> Any:
    """The state of the conversation, which both engines have to publish alike."""
    return json.loads(play(records, rules).states["c1"])


def details(*records: Record, rules: Rules | None = None) -> Any:
    """The details of the one communication."""
    return document(*records, rules=rules)["participants"][0]["communications"][0]["details"]


def test_hold_has_its_start_and_the_last_one_stays() -> None:
    held = leg("calls", {"held": True, "startHoldTime": at(5)}, 6)
    resumed = leg("calls", {"held": False}, 9)
    assert details(held) == {"held": True, "holdStartTime": at(5)}
    assert details(resumed, held) == details(held, resumed) == {"held": False, "holdStartTime": at(5)}


def test_a_start_of_hold_is_no_newer_version() -> None:
    """A snapshot after the resume has no start of a hold, and is newer all the same."""
    (communication,) = document(leg("calls", {"held": True, "startHoldTime": at(5)}, 6))["participants"][0][
        "communications"
    ]
    assert communication["version"] == {"rank": 1}


def test_disconnect_reasons_are_codes_with_their_protocols() -> None:
    reasons = [{"type": "SIP", "code": 486, "phrase": "Private"}, None, {"type": "q850", "code": 17.0}, {"code": 1}]
    shown = {"disconnectReasons": reasons, "errorInfo": {"code": "error.x", "message": "Private"}}
    assert details(leg("calls", shown)) == {"disconnectReasons": ["q850:17", "sip:486"], "errorCode": "error.x"}


def test_error_and_reasons_are_in_the_context_of_the_end() -> None:
    shown = {"state": "disconnected", "errorInfo": {"code": "e"}, "disconnectReasons": [{"type": "sip", "code": 486}]}
    (transition,) = play([leg("calls", shown)]).log
    assert transition["context"] == {"errorCode": "e", "disconnectReasons": ["sip:486"]}


def test_a_planned_callback_dates_nothing() -> None:
    planned = leg("callbacks", {"state": "scheduled", "callbackScheduledTime": at(864_000)}, 5)
    (communication,) = document(planned)["participants"][0]["communications"]
    assert communication["details"] == {"callbackScheduledTime": at(864_000)}
    assert communication["stateTime"] == at(5)


@pytest.mark.parametrize("address", [ADDRESS, {"addressRaw": ADDRESS["addressNormalized"]}])
def test_an_endpoint_is_recognized_by_its_digest(address: dict[str, str]) -> None:
    (digest,) = details(leg("cobrowsesessions", {"self": address}), rules=KEYED).values()
    assert details(leg("cobrowsesessions", {"self": ADDRESS}), rules=KEYED) == {"endpointDigest": digest}
    assert len(digest) == 32


def test_an_endpoint_has_no_digest_without_a_key() -> None:
    """There are few numbers: a digest without a key would name whose it is."""
    assert details(leg("cobrowsesessions", {"self": ADDRESS})) == {}


def test_after_call_work_of_a_participant_is_its_own() -> None:
    work = {"startAcwTime": at(1), "endAcwTime": at(2), "wrapup": {"code": "w", "durationSeconds": 3, "notes": "x"}}
    (participant,) = document(conversation({"participants": [{"id": "p1"} | work]}, 5))["participants"]
    assert participant["details"] == {
        "wrapupCode": "w",
        "wrapupDurationSeconds": 3,
        "afterCallWorkStartTime": at(1),
        "afterCallWorkEndTime": at(2),
    }


def test_details_of_a_conversation_keep_their_newest_value() -> None:
    transfers = [
        {"id": "t2", "transferType": "ATTENDED", "dateIssued": at(2), "destination": {"address": "Private"}},
        {"id": "t1", "state": "complete", "initiator": {"userId": "u1"}, "destination": {"userId": "u2"}},
        {"state": "active"},
    ]
    first = conversation({"externalTag": "old", "recentTransfers": transfers}, 5)
    second = conversation({"externalTag": "new", "divisions": [{"division": {"id": "d1"}}, {"division": {}}]}, 6)
    third = conversation({"participants": [{"id": "p1"}]}, 7)
    expected = document(first, second, third)
    assert (expected["details"], expected["detailTimes"]) == (
        {
            "externalTag": "new",
            "divisionIds": ["d1"],
            "recentTransfers": [
                {"transferId": "t1", "state": "complete", "initiatorUserId": "u1", "destinationUserId": "u2"},
                {"transferId": "t2", "kind": "attended", "time": at(2)},
            ],
        },
        {"externalTag": at(6), "divisionIds": at(6), "recentTransfers": at(5)},
    )
    assert [document(*order)["details"] for order in ([third, first, second], [second, third, first])] == [
        expected["details"]
    ] * 2


def test_an_implausible_transfer_time_is_counted() -> None:
    played = play([conversation({"recentTransfers": [{"id": "t1", "dateIssued": "soon"}]})])
    assert [getattr(outcome, "anomalies", None) for outcome in played.outcomes] == [("implausible_time",)]


def test_an_endpoint_of_another_type_is_wrong_even_where_it_is_not_used() -> None:
    """As for any other property that is declared: here of a session without an id."""
    body = {"participants": [{"id": "p1", "cobrowsesessions": [{"self": "x"}]}]}
    assert [outcome.reason for outcome in play([conversation(body)]).outcomes] == ["wrong_type"]
