"""Convert times between the wire, epoch milliseconds and the published text. No clock is read.

Inside the core a time is an `int`, epoch milliseconds, where there is arithmetic; elsewhere it is its published text,
`2026-01-01T10:05:01.123Z`, which has a fixed width and so sorts as the time does.
"""

import re
from datetime import datetime, timedelta
from functools import lru_cache

EARLIEST_MS = 1_262_304_000_000
"""2010-01-01: no conversation of Genesys Cloud is older, so an earlier time is a broken clock."""
LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that fits the published text."""
DAY_MS = 86_400_000

_TEXT_LENGTH_MAX = 40  # "YYYY-MM-DDTHH:MM:SS.nnnnnnnnn+HH:MM" has 35; nothing longer is worth caching
_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ]((?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII
)
"""Hour 24 is no time here; Python takes it for midnight from 3.14 on."""
_PUBLISHED = re.compile(
    r"(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", re.ASCII
)
"""A time in the published form already, on a day that every month has: it needs no conversion."""
_HOURS_MAX, _MINUTES_MAX = 23, 59
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, like every time here; without a zone its text has none
_MILLISECOND = timedelta(milliseconds=1)


def parse(wire: str | float | None) -> int | None:
    """Epoch milliseconds of a time on the wire, None if it is absent or unreadable. Fractions are cut."""
    if wire is None:
        return None
    if isinstance(wire, str):
        return _parse_text(wire) if len(wire) <= _TEXT_LENGTH_MAX else None
    return int(wire) if -LATEST_MS <= wire <= LATEST_MS else None


@lru_cache(maxsize=65_536)
def _parse_text(text: str) -> int | None:
    if _PUBLISHED.fullmatch(text):
        return (datetime.fromisoformat(text[:-1]) - _EPOCH) // _MILLISECOND
    matched = _TEXT.fullmatch(text)
    if matched is None:
        return None
    date, time, fraction, sign, hours, minutes = matched.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}")
    except ValueError:
        return None
    milliseconds = (moment - _EPOCH) // _MILLISECOND
    if fraction is not None:
        milliseconds += int(fraction[:3].ljust(3, "0"))
    if sign is not None:
        if int(hours) > _HOURS_MAX or int(minutes) > _MINUTES_MAX:
            return None
        offset = (int(hours) * 60 + int(minutes)) * 60_000
        milliseconds += -offset if sign == "+" else offset
    return milliseconds


@lru_cache(maxsize=65_536)
def to_text(milliseconds: int) -> str:
    """The published form of a time from `EARLIEST_MS` to `LATEST_MS`."""
    return f"{(_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec='milliseconds')}Z"


def normalize(wire: str | float) -> str | None:
    """The published form of a time on the wire, None if it is unreadable or outside `EARLIEST_MS` to `LATEST_MS`."""
    if isinstance(wire, str) and len(wire) <= _TEXT_LENGTH_MAX:
        return _normalize_text(wire)
    return _normalize(wire)


@lru_cache(maxsize=65_536)
def _normalize_text(wire: str) -> str | None:
    return wire if wire >= _EARLIEST and _PUBLISHED.fullmatch(wire) else _normalize(wire)


def _normalize(wire: str | float) -> str | None:
    milliseconds = parse(wire)
    return None if milliseconds is None or not EARLIEST_MS <= milliseconds <= LATEST_MS else to_text(milliseconds)


_EARLIEST = to_text(EARLIEST_MS)


def to_ms(published: str) -> int:
    """Epoch milliseconds of a published time. Raises ValueError if the text is none."""
    parsed = _parse_text(published)
    if parsed is None:
        raise ValueError(f"not a published time: {published[:_TEXT_LENGTH_MAX]!r}")
    return parsed
