"""Messages that the service publishes, from simulated traffic and the worked examples."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.engine.dead_letters import DeadLetterFormat, build
from consumer.simulator.traffic import Traffic, records
from tests.core.play import Played, play
from tests.data.worked_examples import WORKED_EXAMPLES
from tests.strategies import TOPIC


def simulate(traffic: Traffic, count: int) -> list[Record]:
    """The first records of a traffic, as a partition holds them."""
    return [
        Record(TOPIC, 0, offset, draft.timestamp_ms, draft.key, draft.value, draft.headers)
        for offset, draft in enumerate(islice(records(traffic), count))
    ]


def publish(source: list[Record]) -> dict[str, list[Any]]:
    """What comes of the records and of the worked examples, by the name of its schema."""
    played = [play(found) for found in (source, *(example.records for example in WORKED_EXAMPLES))]
    return {
        "dead-letter-headers": dead_letter_headers(source, played[0]),
        "state": [msgspec.json.decode(state) for result in played for state in result.states.values()],
        "transition": [transition for result in played for transition in result.log],
    }


def dead_letter_headers(source: Iterable[Record], played: Played) -> list[dict[str, str]]:
    """The headers of the dead letters among played records, half of them without the payload."""
    letters = [
        build(record, outcome, DeadLetterFormat(bool(record.offset % 2), 1_000, "1.2.3"))
        for record, outcome in zip(source, played.outcomes, strict=True)
        if isinstance(outcome, DeadLettered)
    ]
    return [{name: (text or b"").decode() for name, text in letter.headers} for letter in letters]
