"""JSON Schemas (2020-12) of what the service publishes: values, and the headers of dead letters."""

import inspect
import sys
from typing import Any, Final

from msgspec import Struct

from consumer.core.reasons import DEAD_LETTER_REASONS
from generate.components import components, to_json_terms
from schemas.dead_letter import DeadLetterHeaders
from schemas.state import STATE_SCHEMA, ConversationState
from schemas.transition import TRANSITION_SCHEMA, Transition

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED: Final[dict[str, tuple[type[Struct], int | None]]] = {
    "state": (ConversationState, STATE_SCHEMA),
    "transition": (Transition, TRANSITION_SCHEMA),
    "dead-letter-headers": (DeadLetterHeaders, None),
}
"""What is published by name, each with the `schema` number that it carries; headers carry none."""


def topic_schemas() -> dict[str, dict[str, Any]]:
    """The schemas by name; another `schema` number is another schema."""
    return {
        name: {
            "$schema": _DIALECT,
            "$id": f"urn:conversation-consumer:{name}" + ("" if number is None else f":{number}"),
            "description": describe_module(struct),
            "$ref": f"#/$defs/{struct.__name__}",
            "$defs": published_components(name, "#/$defs/{name}"),
        }
        for name, (struct, number) in PUBLISHED.items()
    }


def published_components(name: str, ref_template: str) -> dict[str, dict[str, Any]]:
    """The schemas of one of `PUBLISHED` and of all that it holds, by the names of the classes."""
    struct, number = PUBLISHED[name]
    schemas = components([struct], ref_template)
    properties = schemas[struct.__name__]["properties"]
    if number is not None:
        properties["schema"]["const"] = number
    if struct is DeadLetterHeaders:
        properties["cc-reason"]["examples"] = list(DEAD_LETTER_REASONS)
    return schemas


def describe_module(struct: type[Struct]) -> str:
    """What the module of a Struct says of itself."""
    return to_json_terms(inspect.getdoc(sys.modules[struct.__module__]) or "", {})
