"""Which engine a worker runs: the native one where it is built, unless `CC_ENGINE` says otherwise."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import Engine
from consumer.engine.python import EngineOptions, PythonEngine
from consumer.settings import EngineChoice, Settings

if TYPE_CHECKING:
    from consumer.engine._native import FetchedRecords

EngineName = Literal["native", "python"]


class EngineMissingError(Exception):
    """The native engine cannot be imported. The text is the reason."""


class EngineClass(Protocol):
    """What makes an engine."""

    def __call__(self, options: EngineOptions, clock_s: Callable[[], float] = ...) -> Engine:
        """Make the engine of one partition, whose slices last so long by `clock_s`."""


def name_engine(choice: EngineChoice) -> EngineName:
    """The engine that a worker runs. Raises EngineMissingError for `native` where it is not built."""
    if choice == "python":
        return "python"
    try:
        import_native()
    except EngineMissingError:
        if choice == "native":
            raise
        return "python"
    return "native"


def import_native() -> EngineClass:
    """Import the native engine. Raises EngineMissingError where it is not built.

    A panic prints no backtrace: that allocates under a lock, and an allocation that fails then waits for the same lock.
    """
    os.environ["RUST_BACKTRACE"] = "0"
    try:
        from consumer.engine.native import NativeEngine  # noqa: PLC0415 - it needs the extension
    except ImportError as error:
        raise EngineMissingError(str(error)) from error
    return NativeEngine


def choose_records(name: EngineName) -> "type[FetchedRecords] | None":
    """What an engine reads fetched batches with; None where it wants each record as a `Record`."""
    if name == "python":
        return None
    from consumer.engine._native import FetchedRecords  # noqa: PLC0415 - as above

    return FetchedRecords


def choose_engine(settings: Settings, version: str) -> Callable[[], Engine]:
    """Choose what makes the engine of a partition. `version` is the service's, for dead letters.

    Raises EngineMissingError for `native` where it is not built.
    """
    options = EngineOptions(
        settings.rules(),
        BreakerLimits(
            settings.dead_letters_ratio_max,
            settings.tuning.dead_letters_window_records,
            settings.dead_letters_consecutive_max,
        ),
        DeadLetterFormat(settings.dead_letter_payload == "keep", settings.dead_letter_bytes_max, version),
    )
    engine: EngineClass = import_native() if name_engine(settings.engine) == "native" else PythonEngine
    return lambda: engine(options)
