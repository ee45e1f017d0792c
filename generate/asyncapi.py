"""The contract of the four topics as an AsyncAPI 3 document: what is read, what is published, and under which key."""

from typing import Any, Final

from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.engine.dead_letters import MARKER_HEADER, REDRIVES_HEADER
from consumer.preflight.topic_checks import TopicPlan, plans
from consumer.settings import Settings
from generate.components import components
from generate.topics import PUBLISHED, describe_module, published_components
from schemas.dead_letter import DeadLetterHeaders
from schemas.inbound import Conversation, FlatParticipant, Participant, Payload
from schemas.state import STATE_SCHEMA, ConversationState
from schemas.transition import TRANSITION_SCHEMA, Transition

_Json = dict[str, Any]
_REF: Final = "#/components/schemas/{name}"
_INPUT: Final = "Input"
_INPUT_REF: Final = f"#/components/schemas/{_INPUT}{{name}}"
_BINDING: Final = "0.5.0"
_DIGITS: Final = {"type": "string", "pattern": "^[0-9]+$"}
_CONVERSATION_KEY: Final = {"type": "string", "description": "The conversation id."}
_ANY_KEY: Final = {"description": "The key of the record, or none."}


def asyncapi() -> _Json:
    """The document."""
    updates, states, transitions, letters = plans(Settings(bootstrap_servers="broker:9092"))
    return {
        "asyncapi": "3.0.0",
        "id": "urn:conversation-consumer",
        "info": {
            "title": "conversation-consumer",
            "version": f"{STATE_SCHEMA}.{TRANSITION_SCHEMA}",
            "description": (
                "Conversation updates of Genesys Cloud in, the state of each conversation and its transitions out. The "
                "version is the `schema` number of states, then that of transitions: it rises when readers of the "
                "older form would go wrong. Readers set `isolation.level=read_committed`. A field that is absent has "
                "no value, and fields that a reader does not know may come at any time."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "updates": _channel(updates, "The input.", "conversationUpdate"),
            "states": _channel(states, "The newest state of each conversation.", "conversationState", "tombstone"),
            "transitions": _channel(transitions, "A log of operations on transitions.", "transition"),
            "deadLetters": _channel(letters, "Records that could not be used.", "deadLetter", "redriveMarker"),
        },
        "operations": {
            "readUpdates": _operation("receive", "updates"),
            "publishStates": _operation("send", "states"),
            "publishTransitions": _operation("send", "transitions"),
            "publishDeadLetters": _operation("send", "deadLetters"),
        },
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(plan: TopicPlan, summary: str, *messages: str) -> _Json:
    return {
        "address": plan.name,
        "summary": summary,
        "description": f"The default name; `{plan.setting}` sets it.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": [plan.configs["cleanup.policy"]]},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(action: str, channel: str) -> _Json:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _messages() -> _Json:
    return {
        "conversationUpdate": _message(
            describe_module(Payload),
            _CONVERSATION_KEY,
            payload=_reference(Payload, _INPUT_REF),
            headers={
                "type": "object",
                "properties": {
                    SNAPSHOT_TIME_HEADER: _DIGITS | {"description": "The time of the snapshot, in epoch milliseconds."},
                    REDRIVES_HEADER: _DIGITS | {"description": "How often the record was put back into the input."},
                },
            },
        ),
        "conversationState": _message(
            describe_module(ConversationState), _CONVERSATION_KEY, payload=_reference(ConversationState)
        ),
        "tombstone": _message("The conversation is no longer kept.", _CONVERSATION_KEY, payload={"type": "null"}),
        "transition": _message(describe_module(Transition), _CONVERSATION_KEY, payload=_reference(Transition)),
        "deadLetter": _message(
            describe_module(DeadLetterHeaders), _ANY_KEY, payload={}, headers=_reference(DeadLetterHeaders)
        ),
        "redriveMarker": _message(
            "What `dead-letters redrive` has put back. It is no dead letter.",
            _ANY_KEY,
            payload={},
            headers={
                "type": "object",
                "properties": {MARKER_HEADER: _DIGITS | {"description": "How many dead letters it names."}},
                "required": [MARKER_HEADER],
            },
        ),
    }


def _message(description: str, key: _Json, *, payload: _Json, headers: _Json | None = None) -> _Json:
    message: _Json = {
        "description": description,
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING}},
    }
    return message if headers is None else message | {"headers": headers}


def _schemas() -> _Json:
    """All schemas by the names of the classes, those of the input with a prefix: some have the name of an output.

    The topic of an update decides on the shape of its participants.
    """
    inputs = components([Payload, Participant, FlatParticipant], _INPUT_REF)
    for holder in (Payload, Conversation):
        participants, _ = inputs[holder.__name__]["properties"]["participants"]["anyOf"]
        shapes = [_reference(shape, _INPUT_REF) for shape in (Participant, FlatParticipant)]
        participants["items"] = {"anyOf": [*shapes, {"type": "null"}]}
    schemas = {f"{_INPUT}{name}": schema | {"title": f"{_INPUT}{name}"} for name, schema in inputs.items()}
    for published in PUBLISHED:
        for name, schema in published_components(published, _REF).items():
            assert schemas.setdefault(name, schema) == schema, f"two Structs have the name {name}"
    return schemas


def _reference(struct: type, template: str = _REF) -> _Json:
    return {"$ref": template.format(name=struct.__name__)}
