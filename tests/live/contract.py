"""Whether records of the output topics fit the JSON Schemas that the package ships."""

import json
from collections.abc import Iterable
from importlib import resources
from typing import Any, Final

from jsonschema_rs import ValidationError, Validator, validator_for

from consumer.core.record import Record
from consumer.engine.dead_letters import is_marker
from consumer.settings import Settings


def _read_validator(name: str) -> Validator:
    schema = resources.files("schemas").joinpath("json", f"{name}.schema.json").read_text(encoding="utf-8")
    return validator_for(schema, validate_formats=True)


_VALIDATORS: Final = {name: _read_validator(name) for name in ("state", "transition", "dead-letter-headers")}


def check(settings: Settings, topic: str, records: Iterable[Record]) -> None:
    """Raise AssertionError for the first record of an output topic that is not as its schema has it."""
    names = {
        settings.state_topic: "state",
        settings.transitions_topic: "transition",
        settings.dead_letters_topic: "dead-letter-headers",
    }
    if topic not in names:
        return
    validator = _VALIDATORS[names[topic]]
    for record in records:
        try:
            for message in _messages(names[topic], record):
                validator.validate(message)
        except ValidationError as error:
            raise AssertionError(f"{topic}, partition {record.partition}, offset {record.offset}: {error}") from error


def _messages(name: str, record: Record) -> Iterable[Any]:
    """What a record has for a schema: nothing if it is a tombstone or the marker of a redrive."""
    if name == "dead-letter-headers":
        return () if is_marker(record) else ({header: (text or b"").decode() for header, text in record.headers},)
    return () if record.value is None else (json.loads(record.value),)
