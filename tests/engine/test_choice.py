"""Which engine is chosen, with and without the extension."""

import sys
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from consumer.engine.choice import EngineMissingError, EngineName, choose_engine, name_engine
from consumer.engine.python import EngineOptions, PythonEngine
from consumer.settings import EngineChoice
from tests.worker.scenes import settings_of

MODULE = "consumer.engine.native"


class StandIn(PythonEngine):
    """Stands for the native engine where it is not built."""


@pytest.fixture
def _missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)  # importing it raises ImportError


@pytest.fixture
def _built(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = SimpleNamespace(NativeEngine=StandIn)
    monkeypatch.setitem(sys.modules, MODULE, module)


@pytest.mark.usefixtures("_missing")
@pytest.mark.parametrize("choice", ["auto", "python"])
def test_python_runs_where_the_native_is_not_built(choice: EngineChoice) -> None:
    assert name_engine(choice) == "python"
    assert type(choose_engine(settings_of(engine=choice), "1")()) is PythonEngine


@pytest.mark.usefixtures("_missing")
def test_native_is_refused_where_it_is_not_built() -> None:
    with pytest.raises(EngineMissingError, match=MODULE):
        name_engine("native")
    with pytest.raises(EngineMissingError, match=MODULE):
        choose_engine(settings_of(engine="native"), "1")


@pytest.mark.usefixtures("_built")
@pytest.mark.parametrize(("choice", "name"), [("auto", "native"), ("native", "native"), ("python", "python")])
def test_native_runs_where_it_is_built(choice: EngineChoice, name: EngineName) -> None:
    assert name_engine(choice) == name
    engine = choose_engine(settings_of(engine=choice), "1")()
    assert type(engine) is (StandIn if name == "native" else PythonEngine)


def test_every_choice_but_auto_is_an_engine() -> None:
    assert {*get_args(EngineChoice)} - {"auto"} == {*get_args(EngineName)}


def test_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EngineOptions] = []
    monkeypatch.setattr("consumer.engine.choice.PythonEngine", seen.append)
    settings = settings_of(engine="python", dead_letters_consecutive_max=7, dead_letter_payload="drop")
    choose_engine(settings, "9")()
    (options,) = seen
    assert (options.rules, options.breaker.consecutive_max) == (settings.rules(), 7)
    assert (options.dead_letters.keep_payload, options.dead_letters.version) == (False, "9")
