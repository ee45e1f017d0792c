"""Whether the engine that CC_ENGINE names can run."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.engine.python import PythonEngine
from consumer.preflight import engine_check
from consumer.preflight.check_result import CheckStatus
from consumer.settings import EngineChoice

MODULE = "consumer.engine.native"


@pytest.mark.parametrize(
    ("choice", "is_built", "status", "message"),
    [
        ("auto", True, "pass", "native"),
        ("native", True, "pass", "native"),
        ("python", True, "pass", "python"),
        ("python", False, "pass", "python"),
        ("auto", False, "pass", "python: the native engine is not built ("),
        ("native", False, "fail", "CC_ENGINE=native: the native engine is not built ("),
    ],
)
def test_engine_is_named_and_only_native_can_be_missing(
    monkeypatch: pytest.MonkeyPatch,
    choice: EngineChoice,
    is_built: bool,  # noqa: FBT001 - a column
    status: CheckStatus,
    message: str,
) -> None:
    module: Any = SimpleNamespace(NativeEngine=PythonEngine) if is_built else None
    monkeypatch.setitem(sys.modules, MODULE, module)
    result = engine_check.check(choice)
    assert (result.check, result.status) == ("engine", status)
    assert result.message.startswith(message)
    assert ("CC_ENGINE=auto" in result.remedy) == (status == "fail")
