"""A short run of `tests.web.fuzz`, which see; `make fuzz-http` has the long one."""

import pytest

from tests.web.fuzz import CLIENTS, fuzz

pytestmark = pytest.mark.slow

SEED = 16
CASES = 12 * CLIENTS
LATE_S = 120.0
"""The command has the limit for a machine that does nothing else."""


async def test_hostile_bytes_do_no_harm() -> None:
    report = await fuzz(SEED, lambda report: report.cases.total() > CASES and bool(report.probes_s), LATE_S)
    assert report.errors == []
