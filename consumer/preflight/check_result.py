"""The result of one check before the start, which the command line prints."""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from consumer.worker.ports import ConfigurationError

CheckStatus = Literal["pass", "warn", "fail"]


class CheckResult(Struct, frozen=True):
    """The result of one check. A warning does not prevent the start."""

    check: str
    """The name of the check."""
    status: CheckStatus
    message: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty if nothing."""
    is_transient: bool = False
    """Whether a failure may pass without a change of settings, topics or permissions."""

    @property
    def sentence(self) -> str:
        """The message and the remedy as one sentence."""
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


def sentences(results: Iterable[CheckResult], status: CheckStatus) -> list[str]:
    """The sentences of the results with a status."""
    return [result.sentence for result in results if result.status == status]


def refuse(results: Iterable[CheckResult]) -> None:
    """Raise ConfigurationError with a line for each check that fails, if any does."""
    failures = sentences(results, "fail")
    if failures:
        raise ConfigurationError("\n".join(failures))
