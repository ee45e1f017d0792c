"""The options and the output of `dead-letters` and `rekey`."""

from collections import Counter

import pytest
from click.testing import CliRunner

from consumer.cli.dead_letters import dead_letters, describe
from consumer.cli.exit_codes import USAGE
from consumer.cli.rekey import describe as describe_rekey
from consumer.cli.rekey import rekey
from consumer.tools.dead_letter_queue import Counts
from consumer.tools.rekey import Progress
from consumer.tools.republish import RekeyOutcome


def test_a_dry_run_says_what_it_would_redrive() -> None:
    counts: Counts = Counter({("too_large", "redrive", ""): 3, ("late", "redrive", ""): 1, ("late", "redriven", ""): 2})
    lines = describe(counts, executed=False)
    assert [line.split()[:2] for line in lines[1:-1]] == [["late", "1"], ["late", "2"], ["too_large", "3"]]
    assert lines[-1] == "dry run, nothing was written: --yes would redrive 4"
    assert describe(counts, executed=True)[-1] == "redrove 4"


def test_a_redrive_says_why_a_record_would_fail_again() -> None:
    counts: Counts = Counter({("late", "would_fail", "wrong_type"): 1, ("too_large", "would_fail", "key_mismatch"): 2})
    _, wrong_type, key_mismatch, total = describe(counts, executed=True)
    assert "would become a dead letter again (wrong_type): fix the cause first" in wrong_type
    assert "rekey SOURCE TARGET" in key_mismatch
    assert total == "redrove 0"


def test_a_redrive_of_nothing_is_one_line() -> None:
    assert describe(Counter(), executed=True) == ["redrove 0"]


@pytest.mark.parametrize(
    "arguments", [["--since", "tomorrow"], ["--reason", "no_reason"], ["--rate", "0"], ["--limit", "0"]]
)
def test_an_invalid_option_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(dead_letters, ["redrive", *arguments])
    assert result.exit_code == USAGE
    assert not result.stdout


def test_a_topic_is_not_copied_into_itself() -> None:
    result = CliRunner().invoke(rekey, ["a", "a"])
    assert result.exit_code == USAGE
    assert "must differ" in result.stderr


def test_a_rekey_reports_keys_and_lost_offsets() -> None:
    outcomes: Counter[RekeyOutcome] = Counter({"rekeyed": 5, "kept": 2, "copied": 1})
    keys, lost = describe_rekey(Progress(has_begun=True, lost=4, is_resumed=True, outcomes=outcomes))
    assert keys.startswith("resumed, and copied 8 records: 5 with a new key, 2 with the same key, 1 unchanged")
    assert lost.startswith("retention deleted 4 offsets of the source")
