"""What a check before the start has found. Adapters give findings; the command line shows them."""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from consumer.runtime.ports import Misfit

Verdict = Literal["pass", "warn", "fail"]


class Finding(Struct, frozen=True):
    """The outcome of one check. A warning keeps nothing from starting."""

    check: str
    """What was looked at."""
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do, if there is anything."""
    heals: bool = False
    """Whether a failure may be over later without anybody changing settings, topics or permissions."""

    @property
    def told(self) -> str:
        """What was found and what to do, as one sentence."""
        return f"{self.found}: {self.remedy}" if self.remedy else self.found


def told(findings: Iterable[Finding], verdict: Verdict) -> list[str]:
    """The sentences of those findings that have this verdict."""
    return [each.told for each in findings if each.verdict == verdict]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise Misfit with everything that fails, a line each, if anything does."""
    failures = told(findings, "fail")
    if failures:
        raise Misfit("\n".join(failures))
