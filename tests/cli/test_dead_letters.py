"""What `dead-letters` and `rekey` tell, and the options that they take."""

from collections import Counter
from typing import Any

import pytest
from click.testing import CliRunner

from consumer.adapters.kafka.dead_letters import Counts
from consumer.adapters.kafka.rekey import Progress
from consumer.cli.dead_letters import dead_letters, newest_of_each_reason, told
from consumer.cli.exits import USAGE
from consumer.cli.rekey import rekey
from consumer.cli.rekey import told as told_of_copy
from consumer.runtime.republish import RekeyOutcome


def test_a_dry_run_says_that_nothing_was_written_and_how_much_it_would_redrive() -> None:
    counts: Counts = Counter({("too_large", "redrive"): 3, ("late", "redrive"): 1, ("late", "redriven"): 2})
    lines = told(counts, executed=False)
    assert [line.split()[:2] for line in lines[1:-1]] == [["late", "1"], ["late", "2"], ["too_large", "3"]]
    assert lines[-1] == "dry run, nothing was written: --yes would redrive 4"
    assert told(counts, executed=True)[-1] == "redrove 4"


def test_the_newest_of_each_reason_are_shown_whatever_partition_they_are_in() -> None:
    documents: list[dict[str, Any]] = [
        {"time": time, "reason": reason, "place": place}
        for time, reason, place in [
            ("1", "late", "0/1"),
            ("4", "late", "0/2"),
            ("3", "late", "1/1"),
            ("2", "no_time", "1/2"),
        ]
    ]
    assert [each["place"] for each in newest_of_each_reason(documents, 2)] == ["1/2", "1/1", "0/2"]
    assert [each["place"] for each in newest_of_each_reason(documents, 1)] == ["1/2", "0/2"]


def test_nothing_to_redrive_is_told_in_a_line() -> None:
    assert told(Counter(), executed=True) == ["redrove 0"]


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--reason", "no_reason"], ["--rate", "0"], ["--limit", "0"]]
)
def test_an_option_that_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(dead_letters, ["redrive", *arguments])
    assert result.exit_code == USAGE
    assert not result.stdout


def test_a_topic_is_not_copied_into_itself() -> None:
    result = CliRunner().invoke(rekey, ["a", "a"])
    assert result.exit_code == USAGE
    assert "must differ" in result.stderr


def test_a_copy_tells_what_became_of_the_keys_and_what_retention_took() -> None:
    outcomes: Counter[RekeyOutcome] = Counter({"rekeyed": 5, "kept": 2, "copied": 1})
    lines = told_of_copy(Progress(has_begun=True, lost=4, is_resumed=True, outcomes=outcomes))
    assert lines[0].startswith("resumed, and copied 8 records: 5 under another key, 2 under the same, 1 as they are")
    assert lines[1].startswith("4 offsets of the source were gone")
