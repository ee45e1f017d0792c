"""The engines that tests run on.

Under CI the native engine has to be built; elsewhere its tests are skipped without it.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, cast

import pytest

from consumer.core.record import Record
from consumer.core.state_codec import StoredState
from consumer.engine.choice import EngineClass, EngineMissingError, EngineName, choose_records, import_native
from consumer.engine.protocol import Engine, Outputs, States
from consumer.engine.python import PythonEngine
from tests.kafka.batches import record_bytes


class StagingStates(States, Protocol):
    """The states of an engine with what is staged over them, as both engines have them."""

    def lookup(self, conversation_id: str) -> StoredState | None:
        """The newest state of a conversation, a staged one included."""

    def stage(self, conversation_id: str, state: StoredState) -> None:
        """Stage what a conversation has come to."""

    def staged(self) -> Iterator[tuple[str, bytes | None]]:
        """The last staged state by conversation; None is a tombstone."""

    def merge(self, log_offset: int | None) -> None:
        """The staged is committed."""


def states_of(engine: Engine) -> StagingStates:
    """The states of an engine of a test."""
    return cast(StagingStates, engine.states)


def list_outputs(engine: Engine) -> Outputs:
    """All that is staged, in lists, which can be compared."""
    outputs = engine.outputs()
    return Outputs(list(outputs.states), list(outputs.transitions), list(outputs.dead_letters))


def as_fetched(records: Sequence[Record]) -> Sequence[Record]:
    """The same records as the native engine gets them of a consumer, if they can be those of one batch."""
    places = {(record.topic, record.partition) for record in records}
    offsets = [record.offset for record in records]
    if len(places) != 1 or any(after <= before for before, after in pairwise(offsets)) or native_class() is None:
        return records
    ((topic, partition),) = places
    new_records = choose_records("native")
    assert new_records is not None
    fetched = new_records(topic, partition)
    content = b"".join(
        record_bytes(
            record.offset - offsets[0],
            record.timestamp_ms,
            record.key,
            record.value,
            [(name.encode(), value) for name, value in record.headers],
        )
        for record in records
    )
    assert fetched.add(content, len(records), offsets[0], 0, None, offsets[0])
    return fetched


def native_class() -> EngineClass | None:
    """The native engine, None where it is not built; fails under CI."""
    try:
        return import_native()
    except EngineMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(f"the native engine is not built, which CI tests: {error}")
        return None


def engine_class(name: EngineName) -> EngineClass:
    """The class of an engine; skips the test where it is not built, and fails it under CI."""
    if name == "python":
        return PythonEngine
    native = native_class()
    if native is None:
        pytest.skip("the native engine is not built: `make engine` builds it")
    return native
