"""Records whose states were also made by a version that knew fewer details, in `old_states.json` beside this page.

That file holds, for each conversation, the state that the version before made of all records but the last; and
`old_state.schema.json` is the schema of its states.
"""

import json
from pathlib import Path
from typing import Any, Final

from consumer.core.record import Record
from tests.strategies import NESTED_TOPICS, at, make_record, websocket

Json = dict[str, Any]

SCHEMA: Final = json.loads((Path(__file__).parent / "old_state.schema.json").read_text(encoding="utf-8"))
STATES: Final[dict[str, str]] = json.loads((Path(__file__).parent / "old_states.json").read_text(encoding="utf-8"))


def records(conversation_id: str) -> list[Record]:
    """The records of one conversation. Each shows all that the ones before it show."""
    bodies = {"c1": _call, "c2": _cobrowse, "c3": _callback}[conversation_id]()
    return [
        make_record(
            websocket(topic, {"id": conversation_id} | body), seconds=10 * number, key=conversation_id, offset=number
        )
        for number, (topic, body) in enumerate(bodies, 1)
    ]


def _call() -> list[tuple[str, Json]]:
    """A call that is held, transferred and ends with an error."""
    shown = {
        "externalTag": "crm-1",
        "divisions": [{"division": {"id": "d1"}}],
        "recentTransfers": [{"id": "t1", "state": "complete", "transferType": "unattended", "dateIssued": at(3)}],
    }
    leg = {"id": "m1", "state": "alerting", "startAlertingTime": at(1), "direction": "inbound", "provider": "Edge"}
    agent = {
        "id": "p1",
        "purpose": "agent",
        "userId": "u1",
        "queueId": "q1",
        "groupId": "g1",
        "consultParticipantId": "p2",
        "conversationRoutingData": {"language": {"id": "l1"}, "priority": 3, "skills": [{"id": "s1"}]},
    }
    held = leg | {"state": "connected", "connectedTime": at(5), "held": True, "startHoldTime": at(12)}
    ended = held | {
        "state": "disconnected",
        "held": False,
        "disconnectedTime": at(25),
        "disconnectType": "error",
        "errorInfo": {"code": "error.x"},
        "disconnectReasons": [{"type": "sip", "code": 486}],
        "wrapup": {"code": "w1"},
    }
    done = agent | {"startAcwTime": at(25), "endAcwTime": at(29), "wrapup": {"code": "w1", "durationSeconds": 4}}
    return [
        (NESTED_TOPICS[0], shown | {"participants": [agent | {"calls": [leg]}]}),
        (NESTED_TOPICS[0], shown | {"participants": [agent | {"calls": [held]}]}),
        (NESTED_TOPICS[0], shown | {"participants": [done | {"calls": [ended]}]}),
        (NESTED_TOPICS[0], shown | {"participants": [done | {"calls": [ended | {"state": "terminated"}]}]}),
    ]


def _cobrowse() -> list[tuple[str, Json]]:
    """A co-browse session in both shapes, whose flat one joins the nested one."""
    session = {"id": "m1", "cobrowseSessionId": "s1", "self": {"addressNormalized": "a"}, "providerEventTime": at(1)}
    flat = {"id": "p1", "cobrowseSessionId": "s1", "monitoredParticipantId": "p9", "startHoldTime": at(15)}
    topic = "v2.users.u1.conversations.cobrowseSessions"
    return [
        (NESTED_TOPICS[0], {"participants": [{"id": "p1", "cobrowsesessions": [session | {"state": "alerting"}]}]}),
        (topic, {"participants": [flat | {"state": "connected", "connectedTime": at(15), "errorInfo": {"code": "e"}}]}),
        (
            topic,
            {
                "divisions": [{"division": {"id": "d1"}}],
                "participants": [flat | {"state": "connected", "connectedTime": at(15), "errorInfo": {"code": "e"}}],
            },
        ),
    ]


def _callback() -> list[tuple[str, Json]]:
    """A callback that is planned."""
    leg = {"id": "m1", "state": "scheduled", "callbackScheduledTime": at(864_000)}
    return [
        (NESTED_TOPICS[0], {"participants": [{"id": "p1", "callbacks": [leg]}]}),
        (NESTED_TOPICS[0], {"participants": [{"id": "p1", "callbacks": [leg | {"state": "alerting"}]}]}),
    ]
