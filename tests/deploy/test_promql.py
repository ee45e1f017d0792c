"""The check of expressions finds mistakes."""

import pytest

from tests.deploy.promql import exported, problems

RATE = "sum by (reason) (rate(conversation_records_total{disposition='dead_lettered'}[5m])) > 0"


def test_a_sound_expression_has_no_problem() -> None:
    assert problems(RATE) == []
    assert problems("up{job='x'} == 0") == []
    assert problems("a:b:c > 1", {"a:b:c": {"job"}}) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (("records_total", "record_total"), "no metric 'conversation_record_total'"),
        (("disposition=", "dispositions="), "conversation_records_total has no label 'dispositions'"),
        (("'dead_lettered'", "'dead_letter'"), "conversation_records_total never has disposition='dead_letter'"),
        (("='dead_lettered'", "=~'applied|dead'"), "conversation_records_total never has disposition='dead'"),
        (("by (reason)", "by (cause)"), "no selector has the label 'cause'"),
    ],
)
def test_a_mistake_is_found(damage: tuple[str, str], problem: str) -> None:
    assert problems(RATE.replace(*damage))[0] == problem


def test_a_syntax_error_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        problems(RATE.replace("[5m]))", "[5m])"))


def test_the_bound_of_a_bucket_exists() -> None:
    assert problems("conversation_record_age_seconds_bucket{le='10.0'}") == []
    assert problems("conversation_record_age_seconds_bucket{le='10'}") != []


def test_everything_exported_is_known() -> None:
    assert {"up", "conversation_connect_seconds_bucket", "process_open_fds"} <= exported().keys()
