"""What `make schemas` writes is checked in, and what the service publishes is as the schemas have it."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError
from msgspec import Meta, Struct

from consumer.simulator.traffic import Traffic
from consumer.web.api import ENDPOINTS
from generate.__main__ import TOPICS, generate_files
from generate.components import components, field_texts, to_json_terms
from generate.topics import topic_schemas
from tests.schemas.messages import publish, simulate

SCHEMAS = topic_schemas()
RECORDS = 1_500

Word = Annotated[str, Meta(min_length=1)]
"""At least one letter."""


class Base(Struct, rename="camel"):
    """What `Derived` inherits."""

    first_name: str
    """None of the others,
    and `next_word` neither.
    """
    plain: int


class Derived(Base, rename="camel"):
    """It has `first_name`.

    And a list.
    """

    next_word: Word
    last_word: Word | None
    inner: list[dict[str, Base]] | None = None


@pytest.fixture(scope="module")
def published() -> dict[str, list[Any]]:
    """What comes of simulated traffic and of the worked examples, by the name of its schema."""
    return publish(simulate(Traffic(seed=3, conversations=60, disorder=0.3), RECORDS))


def validate(name: str, message: Any) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(SCHEMAS[name], format_checker=checker).validate(message)


@pytest.mark.parametrize("path", generate_files(), ids=lambda path: str(path.name))
def test_what_is_checked_in_is_what_make_schemas_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate_files()[path]


def test_no_schema_is_left_from_before() -> None:
    assert set(TOPICS.iterdir()) == {path for path in generate_files() if path.parent == TOPICS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_by_the_rules_of_its_dialect(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert Draft202012Validator.META_SCHEMA["$id"] == SCHEMAS[name]["$schema"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_published_is_as_the_schema_has_it(published: dict[str, list[Any]], name: str) -> None:
    assert len(published[name]) > RECORDS / 200
    for message in published[name]:
        validate(name, message)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("transition", {"schema": 2}, "1 was expected"),
        ("transition", {"op": "delete"}, "is not one of"),
        ("transition", {"eventTime": 5}, "is not of type 'string'"),
        ("transition", {"eventTime": "soon"}, "is not a 'date-time'"),
        ("dead-letter-headers", {"cc-source-offset": "-1"}, "does not match"),
        ("dead-letter-headers", {"cc-payload": None}, "is not of type 'string'"),
        ("state", {"schema": 2}, "1 was expected"),
        ("state", {"live": "1"}, "is not of type 'integer'"),
        ("state", {"participants": [{}]}, "is a required property"),
    ],
)
def test_another_message_is_refused(
    published: dict[str, list[Any]], name: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        validate(name, published[name][0] | changed)


def test_every_parameter_is_described() -> None:
    for endpoint in ENDPOINTS:
        names = {field.name for field in msgspec.structs.fields(endpoint.parameters)}
        assert field_texts(endpoint.parameters, {}).keys() == names


def test_descriptions_come_from_docstrings() -> None:
    """From those of classes, attributes, bases and aliases, in the terms of JSON."""
    schemas = components([Derived], "#/{name}")
    found = schemas["Derived"]
    assert schemas["Base"]["description"] == "What `Derived` inherits."
    assert found["description"] == "It has `firstName`.\n\nAnd a list."
    descriptions = {name: schema.get("description") for name, schema in found["properties"].items()}
    assert descriptions == {
        "firstName": "`null` of the others, and `nextWord` neither.",
        "plain": None,
        "nextWord": "At least one letter.",
        "lastWord": "At least one letter.",
        "inner": None,
    }


def test_only_whole_words_are_put_into_the_terms_of_json() -> None:
    assert to_json_terms("Nonesuch `as_of`, as_of; True.", {"as_of": "asOf"}) == "Nonesuch `asOf`, as_of; `true`."


def test_a_table_keeps_its_lines() -> None:
    assert (
        to_json_terms(
            """One
        line.

        | a | b |
        | - | - |
        """,
            {},
        )
        == "One line.\n\n| a | b |\n| - | - |"
    )
