"""Contracts of released versions hold: old readers read new messages, and a new worker reads old states.

Rules: docs/reference/schema-evolution.md.
"""

import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import validator_for

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import decode, encode
from consumer.core.step import step
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import States
from consumer.engine.python import EngineOptions
from consumer.engine.state_store import StateStore
from consumer.simulator.traffic import Traffic
from generate.topics import topic_schemas
from tests import model
from tests.core.play import play
from tests.engines import native_class
from tests.schemas.compatibility import Schema, find_breaks, find_misread, number_of
from tests.schemas.messages import publish, simulate
from tests.schemas.release import BEFORE_UPGRADE, RELEASED

CURRENT = topic_schemas()
OPTIONS = EngineOptions(
    Rules(),
    BreakerLimits(ratio_max=1.0, window_records=10, consecutive_max=10),
    DeadLetterFormat(keep_payload=False, payload_bytes_max=0, version="1"),
)
OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
Change = Callable[[dict[str, Any]], object]
FOLDERS = sorted(RELEASED.iterdir(), key=lambda folder: [int(part) for part in folder.name.split(".")])
LAST = {name: json.loads((FOLDERS[-1] / f"{name}.schema.json").read_bytes()) for name in CURRENT}


def lines(folder: Path, name: str) -> list[bytes]:
    """The messages of a version."""
    return (folder / f"{name}.jsonl").read_bytes().splitlines()


def has_number_of(name: str, folder: Path) -> bool:
    """Whether messages of that version carry the number of today."""
    return number_of(json.loads((folder / f"{name}.schema.json").read_bytes())) == number_of(CURRENT[name])


def changed(name: str, change: Change) -> Schema:
    """The released schema after a change of its definitions."""
    document: Schema = deepcopy(LAST[name])
    change(document["$defs"])
    return document


def field(definitions: dict[str, Any], path: str) -> Schema:
    """The schema of a field, by the name of its class and its own."""
    struct, name = path.split(".")
    found: Schema = definitions[struct]["properties"][name]
    return found


@pytest.mark.parametrize("name", CURRENT)
def test_no_reader_of_the_last_release_is_broken(name: str) -> None:
    assert find_breaks(LAST[name], CURRENT[name]) == [], "raise the `schema` number, or let old readers go on"


def test_states_of_the_last_release_are_read() -> None:
    if number_of(LAST["state"]) == number_of(CURRENT["state"]):
        assert find_misread(CURRENT["state"], LAST["state"], is_older=False) == []


BREAKS: list[tuple[str, Change, str]] = [
    ("transition", lambda found: found["Transition"]["required"].remove("id"), ".id: may be absent"),
    ("transition", lambda found: found["Transition"]["properties"].pop("context"), ".context: is gone"),
    ("transition", lambda found: found["Context"]["properties"].pop("queueId"), ".context.queueId: is gone"),
    ("transition", lambda found: field(found, "Transition.id").update(type="integer"), ".id: may be integer"),
    ("transition", lambda found: field(found, "Transition.to").update(OR_NULL), ".to: may be null"),
    ("transition", lambda found: field(found, "Transition.op")["enum"].append("amend"), ".op: may be 'amend'"),
    ("transition", lambda found: field(found, "Transition.op").clear(), ".op: may be anything"),
    (
        "transition",
        lambda found: field(found, "Transition.eventTime").pop("format"),
        ".eventTime: format is None, not 'date-time'",
    ),
    (
        "state",
        lambda found: field(found, "CommunicationState.live").update(default=True),
        ".participants[].communications[].live: absent means True, not False",
    ),
    (
        "state",
        lambda found: field(found, "ConversationState.liveSince")["additionalProperties"]["items"].update(type="null"),
        ".liveSince[][]: may be null",
    ),
    (
        "dead-letter-headers",
        lambda found: field(found, "DeadLetterHeaders.cc-source-offset").update(pattern="^.$"),
        ".cc-source-offset: pattern is '^.$', not '^[0-9]+$'",
    ),
    (
        "dead-letter-headers",
        lambda found: field(found, "DeadLetterHeaders.cc-detail").update(oneOf=[]),
        ".cc-detail: unknown keyword oneOf",
    ),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BREAKS, ids=[sentence for _, _, sentence in BREAKS])
def test_a_change_that_breaks_a_reader_is_found(name: str, change: Change, sentence: str) -> None:
    assert sentence in find_breaks(LAST[name], changed(name, change))


def test_a_change_with_a_risen_number_breaks_no_reader() -> None:
    """A reader of the older number refuses such a message."""

    def change(definitions: dict[str, Any]) -> None:
        field(definitions, "Transition.schema")["const"] += 1
        definitions["Transition"]["required"].remove("id")

    assert find_breaks(LAST["transition"], changed("transition", change)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["Transition"]["properties"].update(queueId={"type": "string"}),
        lambda found: found["Context"]["properties"].update(teamId={"type": "string"}),
        lambda found: found["Transition"].update(description="Another one.", title="T"),
        lambda found: field(found, "Transition.media")["enum"].remove("video"),
        lambda found: found["Transition"]["properties"].update(to={"enum": ["alerting", "connected"]}),
        lambda found: found["Context"]["required"].append("purpose"),
    ],
    ids=["new field", "new field inside", "texts", "fewer values", "known values", "always there"],
)
def test_a_change_that_breaks_no_reader_is_none(change: Change) -> None:
    assert find_breaks(LAST["transition"], changed("transition", change)) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda found: (
                found["ConversationState"]["properties"].update(began={"type": "string"}),
                found["ConversationState"]["required"].append("began"),
            ),
            ".began: may be absent",
        ),
        (
            lambda found: field(found, "CommunicationState.media")["enum"].remove("chat"),
            ".participants[].communications[].media: may be 'chat'",
        ),
    ],
    ids=["new required field", "fewer values"],
)
def test_a_worker_that_misreads_old_states_is_found(change: Change, sentence: str) -> None:
    assert find_misread(changed("state", change), LAST["state"], is_older=False) == [sentence]


@pytest.mark.parametrize("name", CURRENT)
def test_new_messages_fit_the_schemas_of_every_version(name: str) -> None:
    """Old reader, new data."""
    messages = publish(simulate(Traffic(seed=9, conversations=30, flat=0.3, disorder=0.3), 400))[name]
    for folder in FOLDERS:
        if has_number_of(name, folder):
            validator = validator_for(
                (folder / f"{name}.schema.json").read_text(encoding="utf-8"), validate_formats=True
            )
            for message in messages:
                validator.validate(message)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", CURRENT)
def test_messages_of_every_version_fit_the_schemas_of_today(name: str, folder: Path) -> None:
    """New reader, old data."""
    if has_number_of(name, folder):
        validator = validator_for(json.dumps(CURRENT[name]), validate_formats=True)
        for line in lines(folder, name):
            validator.validate(json.loads(line))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_state_is_kept_byte_for_byte(folder: Path) -> None:
    """As long as no record changes it."""
    if has_number_of("state", folder):
        states = {json.loads(line)["conversationId"]: line for line in lines(folder, "state")}
        assert dict(restore(states, StateStore(Rules())).items()) == states
        native = native_class()
        if native is not None:
            assert dict(restore(states, native(OPTIONS).states).items()) == states
        for state in states.values():
            assert encode(decode(state).state, {}).published == state


def test_an_older_worker_keeps_a_state_with_fields_that_it_does_not_know() -> None:
    """After a rollback. What it writes of the conversation itself lacks them."""
    state = lines(FOLDERS[-1], "state")[0]
    newer = state[:-1] + b',"newField":"of a later version"}'
    states = {json.loads(state)["conversationId"]: newer}
    assert dict(restore(states, StateStore(Rules())).items()) == states
    assert encode(decode(newer).state, {}).published == state


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_worker_goes_on_from_old_states(folder: Path) -> None:
    """An upgrade amid the traffic leaves the transitions that a rebuild by the new version makes."""
    if not has_number_of("state", folder):
        return
    with gzip.open(folder / "updates.jsonl.gz") as file:
        updates = [msgspec.json.decode(line, type=Record) for line in file]
    store = StateStore(Rules())
    restore({json.loads(line)["conversationId"]: line for line in lines(folder, "state")}, store)
    log = [json.loads(line) for line in lines(folder, "transition")]
    stream_ms = max(update.timestamp_ms for update in updates[:BEFORE_UPGRADE])
    for number, update in enumerate(updates[BEFORE_UPGRADE:], 1):
        outcome = step(update, Rules(), stream_ms, store.lookup)
        stream_ms = outcome.stream_ms or stream_ms
        if isinstance(outcome, Applied):
            log += [json.loads(msgspec.json.encode(transition)) for transition in outcome.transitions]
            store.stage(outcome.conversation_id, outcome.stored)
            store.merge(number)
    assert model.net(log) == model.net(play(updates).log)


def restore(states: dict[str, bytes], store: States) -> States:
    """Read states into a store, as from the state topic."""
    store.restore((conversation_id.encode(), state) for conversation_id, state in states.items())
    while store.settle(100):
        pass
    return store
