"""Every fault once on three brokers, in an order drawn from a printed seed; `make soak` runs longer."""

import os
import random
from pathlib import Path

import pytest

from tests.live import faults
from tests.live.soak_table import Report

pytestmark = pytest.mark.timeout(1_800)

FAULTS = 26


async def test_every_fault_once_and_the_outputs_equal_the_model(kafka: str, tmp_path: Path) -> None:
    assert kafka
    seed = int(os.environ.get("FAULTS_SEED", random.randrange(10**6)))
    print("seed", seed)
    report = Report(seed)
    await faults.run(faults.Plan(seed), report, tmp_path)
    print(report)
    assert faults.broken_promises(report) == []
    assert (len(report.faults), report.faults.total()) == (FAULTS, FAULTS)
    assert report.records > 0
    assert len(report.eldest) > 1
