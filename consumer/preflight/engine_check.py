"""Which engine a worker would run, and whether it can."""

from typing import Final

from consumer.engine.choice import EngineMissingError, import_native
from consumer.preflight.check_result import CheckResult
from consumer.settings import EngineChoice

_REMEDY: Final = (
    "install it again where a Rust compiler is (`cargo` on the PATH), which builds the engine; or set CC_ENGINE=auto, "
    "which runs the Python engine until then"
)


def check(choice: EngineChoice) -> CheckResult:
    """The engine; fails where CC_ENGINE names the native engine and it is not built."""
    if choice == "python":
        return CheckResult("engine", "pass", "python")
    try:
        import_native()
    except EngineMissingError as error:
        if choice == "native":
            return CheckResult("engine", "fail", f"CC_ENGINE=native: the native engine is not built ({error})", _REMEDY)
        return CheckResult("engine", "pass", f"python: the native engine is not built ({error})")
    return CheckResult("engine", "pass", "native")
