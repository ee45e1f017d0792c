"""The worked examples of the ordering rules: the records in any order, and the transitions that stand in the end."""

import itertools

import pytest

from tests import model
from tests.core.play import play
from tests.data.worked_examples import WORKED_EXAMPLES, Example
from tests.strategies import at


@pytest.mark.parametrize("example", WORKED_EXAMPLES, ids=lambda example: example.name)
def test_worked_example(example: Example) -> None:
    expected = [(before, after, at(seconds), time_class) for before, after, seconds, time_class in example.standing]
    for order in itertools.permutations(example.records):
        standing = [
            (transition["from"], transition["to"], transition["eventTime"], transition["timeClass"])
            for transition in model.net(play(order).log).values()
        ]
        assert sorted(standing, key=expected.index) == expected
