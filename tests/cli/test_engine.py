"""`run` and `check` where CC_ENGINE names an engine that is not built."""

import sys

import pytest
from click.testing import CliRunner

from consumer.cli.check import check
from consumer.cli.exit_codes import CONFIG
from consumer.cli.run import run

MODULE = "consumer.engine.native"


def test_run_refuses_to_start_without_the_engine(monkeypatch: pytest.MonkeyPatch, dead_address: str) -> None:
    """It asks no broker, and ends with the exit code that says: do not restart, change a setting."""
    monkeypatch.setitem(sys.modules, MODULE, None)  # importing it raises ImportError
    runner = CliRunner(env={"CC_BOOTSTRAP_SERVERS": dead_address, "CC_ENGINE": "native"})
    refused = runner.invoke(run)
    assert refused.exit_code == CONFIG
    assert "CC_ENGINE=native" in refused.stderr
    assert dead_address not in refused.stderr
    checked = runner.invoke(check)
    assert ["fail", "engine"] in [line.split()[:2] for line in checked.stdout.splitlines()]
    assert checked.exit_code == CONFIG
