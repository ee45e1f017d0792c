"""Times on the wire become epoch milliseconds or published text; what cannot is None."""

import pytest

from consumer.core.timestamps import EARLIEST_MS, LATEST_MS, normalize, parse, to_ms, to_text
from tests.strategies import BASE_MS


@pytest.mark.parametrize(
    ("wire", "milliseconds"),
    [
        ("2026-01-01T10:00:00Z", BASE_MS),
        ("2026-01-01 10:00:00", BASE_MS),
        ("2026-01-01T10:00:00.1239Z", BASE_MS + 123),
        ("2026-01-01T10:00:00.5", BASE_MS + 500),
        ("2026-01-01T12:30:00+02:30", BASE_MS),
        ("2026-01-01T09:00:00-0100", BASE_MS),
        (BASE_MS, BASE_MS),
        (BASE_MS + 0.9, BASE_MS),
        (0, 0),
        (None, None),
        ("", None),
        ("now", None),
        ("2026-01-01", None),
        ("2026-02-30T10:00:00Z", None),
        ("2026-01-01T24:00:00Z", None),
        ("2026-01-01T10:00:00+24:00", None),
        ("2026-01-01T10:00:00.1234567890Z", None),
        ("2026-01-01T10:00:00Z" + " " * 40, None),
        (LATEST_MS + 1, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_parse(wire: str | float | None, milliseconds: int | None) -> None:
    assert parse(wire) == milliseconds


@pytest.mark.parametrize(
    ("wire", "published"),
    [
        ("2026-01-01T10:00:00.123Z", "2026-01-01T10:00:00.123Z"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000Z"),
        ("2024-02-29T10:00:00.000Z", "2024-02-29T10:00:00.000Z"),
        ("2026-02-29T10:00:00.000Z", None),
        ("2026-01-01T24:00:00.000Z", None),
        (EARLIEST_MS, "2010-01-01T00:00:00.000Z"),
        (EARLIEST_MS - 1, None),
        ("2009-12-31T23:59:59.999Z", None),
        (LATEST_MS, "9999-12-31T23:59:59.999Z"),
        ("9999-12-31T23:59:59.999-00:01", None),
    ],
)
def test_normalize(wire: str | float, published: str | None) -> None:
    assert normalize(wire) == published


@pytest.mark.parametrize("milliseconds", [EARLIEST_MS, BASE_MS + 7, LATEST_MS])
def test_published_times_convert_back(milliseconds: int) -> None:
    assert to_ms(to_text(milliseconds)) == milliseconds


def test_to_ms_rejects_other_texts() -> None:
    with pytest.raises(ValueError, match="not a published time: 'soon'"):
        to_ms("soon")
