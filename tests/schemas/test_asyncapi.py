"""The AsyncAPI document: valid, complete, and of the same schemas as the files beside it."""

import json
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Validator, validator_for

from consumer.preflight.topic_checks import plans
from consumer.settings import Settings
from consumer.simulator.traffic import Traffic, records
from generate.topics import PUBLISHED, topic_schemas
from tests.data.worked_examples import WORKED_EXAMPLES

DOCUMENT: dict[str, Any] = json.loads(resources.files("schemas").joinpath("json", "asyncapi.json").read_bytes())
SPECIFICATION = Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.json"
"""The JSON Schema of AsyncAPI 3.0.0 (Apache-2.0, the npm package @asyncapi/specs), without its texts."""


def validator(message: str, part: str) -> Validator:
    """The validator of a part of a message."""
    schema = DOCUMENT["components"]["messages"][message][part]
    return validator_for(json.dumps({**schema, "components": DOCUMENT["components"]}), validate_formats=True)


def test_the_document_is_valid() -> None:
    validator_for(SPECIFICATION.read_text(encoding="utf-8")).validate(DOCUMENT)


def test_a_mistake_in_the_document_is_found() -> None:
    specification = validator_for(SPECIFICATION.read_text(encoding="utf-8"))
    for name in ("asyncapi", "info"):
        assert not specification.is_valid({key: value for key, value in DOCUMENT.items() if key != name})
    assert not specification.is_valid(DOCUMENT | {"operations": {"read": {"action": "take"}}})


def test_every_topic_is_a_channel() -> None:
    addresses = {
        channel["address"]: channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"]
        for channel in DOCUMENT["channels"].values()
    }
    planned = plans(Settings(bootstrap_servers="broker:9092"))
    assert addresses == {plan.name: [plan.configs["cleanup.policy"]] for plan in planned}
    assert {operation["channel"]["$ref"] for operation in DOCUMENT["operations"].values()} == {
        f"#/channels/{name}" for name in DOCUMENT["channels"]
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_has_the_same_schema_as_in_its_own_file(name: str) -> None:
    own = json.dumps(topic_schemas()[name]["$defs"]).replace("#/$defs/", "#/components/schemas/")
    assert json.loads(own).items() <= DOCUMENT["components"]["schemas"].items()


def test_schemas_have_the_names_under_which_they_are_found() -> None:
    assert {name: schema["title"] for name, schema in DOCUMENT["components"]["schemas"].items()} == {
        name: name for name in DOCUMENT["components"]["schemas"]
    }


def test_updates_of_every_shape_fit_the_schema_of_the_input() -> None:
    payload = validator("conversationUpdate", "payload")
    traffic = islice(records(Traffic(seed=2, conversations=40, flat=0.3, broken=0.0)), 400)
    updates = [draft.value for draft in traffic] + [
        record.value for example in WORKED_EXAMPLES for record in example.records
    ]
    for update in updates:
        payload.validate(json.loads(update or b"null") or {})


def test_an_update_that_cannot_be_decoded_does_not_fit() -> None:
    payload = validator("conversationUpdate", "payload")
    assert not payload.is_valid({"id": "c", "participants": {}})
    assert not payload.is_valid({"id": "c" * 257})


@pytest.mark.parametrize(
    ("headers", "fits"), [({"cc-redriven": "3"}, True), ({"cc-redriven": "x"}, False), ({}, False)]
)
def test_a_marker_is_told_from_a_dead_letter(
    headers: dict[str, str],
    fits: bool,  # noqa: FBT001 - a column
) -> None:
    assert validator("redriveMarker", "headers").is_valid(headers) == fits
    assert not validator("deadLetter", "headers").is_valid(headers)
