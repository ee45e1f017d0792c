"""Times as people type them: a published time, how long ago, or a day and a time in a zone."""

import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from time import time_ns
from typing import Any, Final

import click

from consumer.cli.output import write_line
from consumer.core import timestamps

_AGO = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)( ago)?")
_UNITS_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAY_AND_TIME = re.compile(
    r"(?P<day>today|yesterday|\d{4}-\d{2}-\d{2})"
    r"(?:[ T](?P<hours>\d{2}):(?P<minutes>\d{2})(?::(?P<seconds>\d{2}))?)?"
    r"(?:\s*(?P<zone>[A-Za-z][A-Za-z0-9_+/-]*|[+-]\d{2}:\d{2}))?"
)
_HAS_ZONE = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_NO_TIME = "is not a time such as 2026-01-31T09:00:00Z, 1h, 'yesterday 14:00' or '2026-01-31 14:00 Europe/Berlin'"


def parse_time(text: str, now_ms: int) -> tuple[int, str]:
    """A time in epoch milliseconds, and the zone that was assumed for it; empty if none was.

    Raises ValueError with the reason if it is no time, or one that no record can have.
    """
    moment_ms, assumed = _parse(text.strip(), now_ms)
    if not timestamps.EARLIEST_MS <= moment_ms <= timestamps.LATEST_MS:
        raise ValueError(_NO_TIME)
    return moment_ms, assumed


def _parse(text: str, now_ms: int) -> tuple[int, str]:
    exact_ms = timestamps.parse(text) if "T" in text else None
    if exact_ms is not None:
        return exact_ms, "" if _HAS_ZONE.search(text) else "UTC"
    if text == "now":
        return now_ms, ""
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _UNITS_S[ago[2]] * 1_000, ""
    if named := _DAY_AND_TIME.fullmatch(text):
        return _on_a_day(named, now_ms)
    raise ValueError(_NO_TIME)


def _on_a_day(named: re.Match[str], now_ms: int) -> tuple[int, str]:
    """The moment that the groups of `_DAY_AND_TIME` name, and the zone that was assumed."""
    zone = _find_zone(named["zone"] or "UTC")
    today = datetime.fromtimestamp(now_ms / 1_000, zone).date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    hours, minutes, seconds = (int(named[part] or 0) for part in ("hours", "minutes", "seconds"))
    try:
        day = days.get(named["day"]) or date.fromisoformat(named["day"])
        moment = datetime.combine(day, time(hours, minutes, seconds), zone)
    except ValueError:
        raise ValueError(_NO_TIME) from None
    return int(moment.timestamp()) * 1_000, "" if named["zone"] else "UTC"


def _find_zone(name: str) -> tzinfo:
    """UTC, an offset such as `+01:00`, or a zone of the IANA database. Raises ValueError."""
    if name in {"Z", "UTC"}:
        return UTC
    if name[0] in "+-":
        return datetime.strptime(name, "%z").tzinfo or UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"names the zone {name!r}, which is not known here: use an offset such as +01:00") from None


class Time(click.ParamType):  # type: ignore[type-arg]  # older versions of click know no argument
    """A time; the command gets it in epoch milliseconds. The message on standard error says how it was understood."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `ParamType.convert`."""
        try:
            moment_ms, assumed = parse_time(value, time_ns() // 1_000_000)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        text = timestamps.to_text(moment_ms)
        if assumed:
            write_line(f"{value!r} is taken as {text}: {assumed} was assumed, name a zone for another", err=True)
        elif timestamps.parse(value) is None:
            write_line(f"{value!r} is taken as {text}", err=True)
        return moment_ms


class PublishedTime(Time):
    """As `Time`; the command gets it in the form in which times are published."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `ParamType.convert`."""
        return timestamps.to_text(super().convert(value, param, ctx))
