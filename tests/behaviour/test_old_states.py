"""States of the version before, which knew fewer details, and states of this one in that version: both go on."""

import json
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from consumer.core.rules import Rules
from consumer.core.state_codec import decode
from tests.core.play import play, process
from tests.data.old_states import SCHEMA, STATES, records
from tests.outcomes import expect_applied

VALIDATOR = Draft202012Validator(SCHEMA)
CONVERSATIONS = sorted(STATES)


def document(published: bytes) -> Any:
    return json.loads(published)


@pytest.mark.parametrize("conversation_id", CONVERSATIONS)
def test_an_old_state_is_brought_up_to_date_by_the_next_record(conversation_id: str) -> None:
    """As if all records had been read by this version, as the last one shows all that the others did."""
    history = records(conversation_id)
    old = decode(STATES[conversation_id].encode())
    outcome = expect_applied(process(history[-1], Rules(), known=old))
    assert document(outcome.stored.published) == document(play(history).states[conversation_id])
    assert "details" in document(outcome.stored.published)["participants"][0]


@pytest.mark.parametrize("conversation_id", CONVERSATIONS)
def test_an_old_state_is_restored_as_it_was_written(conversation_id: str) -> None:
    """And is one of the version before: this one makes another of the same records."""
    written = STATES[conversation_id]
    VALIDATOR.validate(json.loads(written))
    assert play(records(conversation_id)[:-1]).states[conversation_id] != written.encode()
    assert document(decode(written.encode()).published) == json.loads(written)


@pytest.mark.parametrize("conversation_id", CONVERSATIONS)
def test_the_version_before_reads_new_states(conversation_id: str) -> None:
    """It skips properties that it does not know; all others are as its schema says, and the number is the same."""
    new = document(play(records(conversation_id)).states[conversation_id])
    VALIDATOR.validate(new)
    assert new["schema"] == json.loads(STATES[conversation_id])["schema"]


def test_the_schema_of_the_version_before_notices_a_change() -> None:
    new = document(play(records("c1")).states["c1"])
    new["participants"][0]["details"]["userId"] = 5
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(new)
