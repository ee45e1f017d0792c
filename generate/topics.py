"""JSON Schemas (2020-12) of what the service publishes: values, and the headers of dead letters."""

import inspect
import sys
from typing import Any

from msgspec import Struct

from consumer.core.reasons import DEAD_LETTER_REASONS
from generate.components import components, to_json_terms
from schemas.dead_letter import DeadLetterHeaders
from schemas.state import STATE_SCHEMA, ConversationState
from schemas.transition import TRANSITION_SCHEMA, Transition

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def topic_schemas() -> dict[str, dict[str, Any]]:
    """The schemas by name."""
    return {
        "state": _describe_numbered("state", STATE_SCHEMA, ConversationState),
        "transition": _describe_numbered("transition", TRANSITION_SCHEMA, Transition),
        "dead-letter-headers": _dead_letter_headers(),
    }


def _describe_numbered(name: str, number: int, struct: type[Struct]) -> dict[str, Any]:
    """The schema of messages that carry their `schema` number; another number is another schema."""
    document = _document(f"{name}:{number}", struct)
    document["$defs"][struct.__name__]["properties"]["schema"]["const"] = number
    return document


def _dead_letter_headers() -> dict[str, Any]:
    document = _document("dead-letter-headers", DeadLetterHeaders)
    reason = document["$defs"][DeadLetterHeaders.__name__]["properties"]["cc-reason"]
    reason["examples"] = list(DEAD_LETTER_REASONS)
    return document


def _document(name: str, struct: type[Struct]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "$id": f"urn:conversation-consumer:{name}",
        "description": to_json_terms(inspect.getdoc(sys.modules[struct.__module__]) or "", {}),
        "$ref": f"#/$defs/{struct.__name__}",
        "$defs": components([struct], "#/$defs/{name}"),
    }
