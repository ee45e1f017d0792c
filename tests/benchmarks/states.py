"""Hundreds of thousands of conversations: those of generated traffic, copied under new ids."""

import random
import uuid
from collections.abc import Iterator
from itertools import islice

import msgspec

from consumer.core.outcomes import Applied
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import StoredState
from consumer.core.step import step
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from tests.live.harness import now_ms

_TEMPLATES_FROM = 30_000
_AGO_MS = 3_600_000


class Template(msgspec.Struct, frozen=True):
    """A conversation to copy: its state and its last update."""

    conversation_id: bytes
    state: bytes
    update: bytes


def templates() -> list[Template]:
    """The conversations after generated traffic; most of them have ended, as in production."""
    states: dict[str, StoredState] = {}
    updates: dict[str, bytes] = {}
    stream_ms = None
    for offset, draft in enumerate(islice(records(Traffic(start_ms=now_ms() - _AGO_MS)), _TEMPLATES_FROM)):
        outcome = step(
            Record("t", 0, offset, draft.timestamp_ms, draft.key, draft.value), Rules(), stream_ms, states.get
        )
        stream_ms = outcome.stream_ms
        if isinstance(outcome, Applied):
            states[outcome.conversation_id] = outcome.stored
            updates[outcome.conversation_id] = draft.value
    return [Template(key.encode(), known.published, updates[key]) for key, known in states.items()]


def topic(settings: Settings) -> Settings:
    """Settings whose input topic is the state topic, for a writer of inputs."""
    return msgspec.structs.replace(settings, input_topic=settings.state_topic)


def drafts(made: list[Template], count: int) -> Iterator[Draft]:
    """State records of so many conversations."""
    for number in range(count):
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.state.replace(template.conversation_id, key), now_ms(), number)


def updates(made: list[Template], count: int, chance: random.Random) -> Iterator[Draft]:
    """Endless updates of random conversations."""
    while True:
        number = chance.randrange(count)
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.update.replace(template.conversation_id, key), now_ms(), number)


def _id(number: int) -> bytes:
    return str(uuid.UUID(int=number + 1)).encode()
