"""Conversations by the hundred thousand: those of generated traffic, multiplied under new ids."""

import random
import uuid
from collections.abc import Iterator
from itertools import islice

import msgspec

from consumer.core.known import Known
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.runtime.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from tests.live.harness import now_ms

_TEMPLATES_FROM = 30_000
_AGO_MS = 3_600_000


class Template(msgspec.Struct, frozen=True):
    """A conversation to be multiplied: its state, and the last update that it had."""

    conversation_id: bytes
    state: bytes
    update: bytes


def templates() -> list[Template]:
    """Conversations as generated traffic leaves them, most of them ended, as in life."""
    states: dict[str, Known] = {}
    updates: dict[str, bytes] = {}
    stream_ms = None
    for offset, draft in enumerate(islice(records(Traffic(start_ms=now_ms() - _AGO_MS)), _TEMPLATES_FROM)):
        outcome = step(
            Record("t", 0, offset, draft.timestamp_ms, draft.key, draft.value), Rules(), stream_ms, states.get
        )
        stream_ms = outcome.stream_ms
        if outcome.known is not None:
            states[outcome.conversation_id] = outcome.known
            updates[outcome.conversation_id] = draft.value
    return [Template(key.encode(), known.published, updates[key]) for key, known in states.items()]


def topic(settings: Settings) -> Settings:
    """Settings with which a writer of the input writes to the state topic instead."""
    return msgspec.structs.replace(settings, input_topic=settings.state_topic)


def drafts(made: list[Template], count: int) -> Iterator[Draft]:
    """The records of the state topic of so many conversations."""
    for number in range(count):
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.state.replace(template.conversation_id, key), now_ms(), number)


def updates(made: list[Template], count: int, chance: random.Random) -> Iterator[Draft]:
    """Endless news of conversations chosen at random."""
    while True:
        number = chance.randrange(count)
        template, key = made[number % len(made)], _id(number)
        yield Draft(key, template.update.replace(template.conversation_id, key), now_ms(), number)


def _id(number: int) -> bytes:
    return str(uuid.UUID(int=number + 1)).encode()
