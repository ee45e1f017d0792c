"""Which states and disconnect types are known, and how enumeration values are folded."""

import pytest

from consumer.core.lifecycle import DISCONNECT_TYPES, RANKS, fold_case
from tests.core.play import play
from tests.strategies import make_record


@pytest.mark.parametrize(
    ("wire", "folded"),
    [
        ("TRANSFER_CONFERENCE", "transfer.conference"),
        ("transfer.conference", "transfer.conference"),
        ("Connected", "connected"),
        ("NEW_VALUE", "new.value"),
    ],
)
def test_fold_case(wire: str, folded: str) -> None:
    assert fold_case(wire) == folded


@pytest.mark.parametrize("value", [*RANKS, *sorted(DISCONNECT_TYPES)])
def test_known_values_are_folded_already(value: str) -> None:
    assert fold_case(value) == fold_case(value.upper().replace(".", "_")) == value


@pytest.mark.parametrize("disconnect_type", [*sorted(DISCONNECT_TYPES), "ENDPOINT_DONOTDISTURB"])
def test_a_known_disconnect_type_is_no_anomaly(disconnect_type: str) -> None:
    call = {"id": "m1", "state": "disconnected", "disconnectType": disconnect_type}
    (outcome,) = play([make_record({"id": "c1", "participants": [{"id": "p1", "calls": [call]}]})]).outcomes
    assert outcome.anomalies == ()


def test_the_disconnect_types_of_the_rest_api_are_known() -> None:
    assert {"endpoint.donotdisturb", "transfer.donotdisturb"} <= DISCONNECT_TYPES
