"""The tables of the capacity page are those of the plan, and the plan does as it says."""

from itertools import product

import pytest
from msgspec.structs import replace

from consumer.container_memory import share_of_states
from tests.benchmarks.plan import (
    CONVERSATIONS,
    CORE_SHARE,
    LANES_MIN,
    MEASURED,
    PAGE,
    RATES,
    RESTORE_S,
    WORKER_BYTES,
    Inputs,
    fill,
    make_plan,
    make_tables,
)
from tests.docs.pages import text_of

SIZES = list(product(RATES, CONVERSATIONS))


def test_page_has_the_tables_of_the_plan() -> None:
    assert all(text in text_of(PAGE) for text in make_tables(MEASURED).values())
    assert fill(text_of(PAGE), MEASURED) == text_of(PAGE)
    assert fill(text_of(PAGE), replace(MEASURED, state_bytes=1)) != text_of(PAGE)


@pytest.mark.parametrize(("rate", "conversations"), SIZES)
def test_plan_holds_its_limits_without_one_worker(rate: int, conversations: int) -> None:
    plan = make_plan(MEASURED, rate, conversations)
    others = plan.workers - 1
    assert plan.core_share_without_one <= CORE_SHARE
    assert plan.worker_bytes * plan.workers / others <= share_of_states(WORKER_BYTES)
    assert plan.restore_s * plan.workers / others <= RESTORE_S
    assert plan.partitions >= plan.workers * LANES_MIN
    assert plan.catch_up_s > 0


@pytest.mark.parametrize(
    ("changed", "bottleneck"),
    [
        ({"record_us": 10_000.0, "catching_up_us": 10_000.0}, "CPU"),
        ({"state_bytes": 500_000}, "memory"),
        ({"restore_us": 10_000.0}, "restore"),
    ],
)
def test_bottleneck_is_what_costs_most(changed: dict[str, float], bottleneck: str) -> None:
    inputs: Inputs = replace(MEASURED, **changed)
    assert make_plan(inputs, 1_000, 1_000_000).bottleneck == bottleneck
