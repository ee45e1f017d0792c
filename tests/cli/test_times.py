"""Times as people type them."""

import click
import pytest
from click.testing import CliRunner

from consumer.cli.times import PublishedTime, Time, parse_time
from consumer.core import timestamps

NOW = "2026-11-28T14:30:15.250Z"
NOW_MS = timestamps.to_ms(NOW)


@pytest.mark.parametrize(
    ("text", "expected", "assumed"),
    [
        ("2026-01-31T09:00:00Z", "2026-01-31T09:00:00.000Z", ""),
        ("2026-01-31T09:00:00.5+01:00", "2026-01-31T08:00:00.500Z", ""),
        ("2026-01-31T09:00:00", "2026-01-31T09:00:00.000Z", "UTC"),
        ("now", NOW, ""),
        ("90s", "2026-11-28T14:28:45.250Z", ""),
        ("5m", "2026-11-28T14:25:15.250Z", ""),
        ("1h", "2026-11-28T13:30:15.250Z", ""),
        ("2 d ago", "2026-11-26T14:30:15.250Z", ""),
        ("today", "2026-11-28T00:00:00.000Z", "UTC"),
        ("yesterday 14:00", "2026-11-27T14:00:00.000Z", "UTC"),
        ("today 00:30 Asia/Tokyo", "2026-11-27T15:30:00.000Z", ""),
        ("2026-11-28 14:00 Europe/Berlin", "2026-11-28T13:00:00.000Z", ""),
        ("2026-07-28 14:00 Europe/Berlin", "2026-07-28T12:00:00.000Z", ""),
        ("2026-11-28 14:00:30 -05:30", "2026-11-28T19:30:30.000Z", ""),
        ("2026-11-28 14:00 UTC", "2026-11-28T14:00:00.000Z", ""),
        ("2026-11-28", "2026-11-28T00:00:00.000Z", "UTC"),
    ],
)
def test_times_are_understood(text: str, expected: str, assumed: str) -> None:
    moment_ms, zone = parse_time(text, NOW_MS)
    assert (timestamps.to_text(moment_ms), zone) == (expected, assumed)


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "1", "h", "2026-02-31T00:00:00Z", "2026-02-31", "1999-01-01T00:00:00Z", "25:00", "today 25:00",
     "999999w", "2026-11-28 14:00 ../../etc/passwd"],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time such as"):
        parse_time(text, NOW_MS)


@pytest.mark.parametrize("zone", ["Europe/Berlim", "CEST", "Europe/"])
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(ValueError, match=f"names the zone '{zone}', which is not known here"):
        parse_time(f"today 14:00 {zone}", NOW_MS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-01-31T09:00:00Z", ""),
        ("2026-01-31", "'2026-01-31' is taken as 2026-01-31T00:00:00.000Z: UTC was assumed, name a zone for another\n"),
        ("2026-01-31 01:00 +01:00", "'2026-01-31 01:00 +01:00' is taken as 2026-01-31T00:00:00.000Z\n"),
    ],
)
def test_a_command_says_how_it_took_a_time(text: str, said: str) -> None:
    @click.command()
    @click.option("--milliseconds", type=Time())
    @click.option("--published", type=PublishedTime())
    def command(milliseconds: int, published: str) -> None:
        assert timestamps.to_text(milliseconds) == published

    result = CliRunner().invoke(command, ["--milliseconds", text, "--published", text])
    assert (result.exit_code, result.stderr) == (0, said * 2)
