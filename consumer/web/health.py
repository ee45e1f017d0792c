"""Is it well? What the live page says of the whole consumer group, judged from an overview. Pure."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct

from consumer.query.fleet import FleetOverview
from consumer.query.trends import SAMPLES_MAX, SLOT_MS, Sample
from consumer.web.page_text import duration, number
from schemas.query import LaneView

_LATE_MS: Final = 60_000
"""The delay from which on the page calls attention to it: that of the alerts is longer."""
_WIDTH: Final = SAMPLES_MAX
_HEIGHT: Final = 30
_READING: Final = "running"


class Chart(Struct, frozen=True):
    """A line over the last `SAMPLES_MAX` slots, `_WIDTH` wide and `_HEIGHT` high, newest at the right."""

    path: str
    """What is drawn, as an SVG path; empty without samples."""
    label: str
    """The same in words."""


class Card(Struct, frozen=True):
    """One figure, what it means, and how it was before."""

    name: str
    value: str
    note: str
    style: Literal["", "warn", "bad"]
    chart: Chart


class Health(Struct, frozen=True):
    """The verdict."""

    problems: list[str]
    """What keeps the workers from their work, as far as it is known. Partitions that are missing come on top."""
    warnings: list[str]
    """What an operator has to look at although the workers work."""
    troubled: list[LaneView]
    """The partitions that are not read, or stand still."""
    cards: list[Card]


def judge(found: FleetOverview, now_ms: int, *, is_cut_off: bool) -> Health:
    """Judge an overview as of now. `is_cut_off` says whether Kafka does not answer this worker."""
    overview, trend = found.overview, found.trend
    lags = [lane.lag_records for lane in overview.lanes if lane.lag_records is not None]
    lag_records = sum(lags)
    troubled = [lane for lane in overview.lanes if lane.phase != _READING or lane.problem]
    delay_ms = trend[-1].delay_ms if trend and (lag_records or is_cut_off) else 0
    lag = "unknown" if is_cut_off or not lags else number(lag_records)
    letters, corrections = sum(one.dead_letters for one in trend), sum(one.corrections for one in trend)
    span = _name_span(trend)
    problems = []
    if is_cut_off:
        problems.append("Kafka does not answer this worker: what you see is from before.")
    if troubled:
        problems.append(f"Not read: {len(troubled)} of {_count(len(overview.lanes), 'partition')}, listed below.")
    if delay_ms >= _LATE_MS:
        problems.append(f"Behind: records wait, the oldest that was read had waited {duration(delay_ms)}.")
    warnings = [f"{_count(letters, 'record')} could not be used in the last {span}: see the dead letters."]
    slot = now_ms // SLOT_MS
    return Health(
        problems,
        warnings if letters else [],
        troubled,
        [
            Card(
                "Freshness",
                _describe_freshness(lags, lag_records, delay_ms, is_cut_off=is_cut_off),
                "from Kafka to this page",
                "bad" if is_cut_off or delay_ms >= _LATE_MS else "",
                _draw(trend, [one.delay_ms for one in trend], slot, f"Longest delay in the last {span}", duration),
            ),
            Card(
                "Lag",
                lag,
                "records wait to be read",
                "bad" if troubled else "",
                _draw(trend, [one.lag_records for one in trend], slot, f"Largest lag in the last {span}", number),
            ),
            Card(
                "Dead letters",
                number(sum(count.count for count in overview.dead_letters)),
                f"since the workers started, {number(letters)} in the last {span}",
                "warn" if letters else "",
                _draw(
                    trend,
                    [one.dead_letters for one in trend],
                    slot,
                    f"Most dead letters in {SLOT_MS // 1_000} s",
                    number,
                ),
            ),
            Card(
                "Corrections",
                number(corrections),
                f"by late events in the last {span}",
                "",
                _draw(
                    trend, [one.corrections for one in trend], slot, f"Most corrections in {SLOT_MS // 1_000} s", number
                ),
            ),
        ],
    )


def _describe_freshness(lags: Sequence[int], lag_records: int, delay_ms: int, *, is_cut_off: bool) -> str:
    if is_cut_off:
        return "cut off"
    if not lags:
        return "unknown"
    return f"{duration(delay_ms)} behind" if lag_records else "up to date"


def _name_span(trend: Sequence[Sample]) -> str:
    """How long ago the first sample began."""
    slots = trend[-1].slot - trend[0].slot + 1 if trend else 0
    minutes = min(slots, SAMPLES_MAX) * SLOT_MS // 60_000
    return f"{minutes} min" if minutes > 1 else "minute"


def _draw(trend: Sequence[Sample], values: Sequence[int], slot: int, label: str, name: Callable[[int], str]) -> Chart:
    """A line through the values, interrupted where slots have no sample."""
    highest = max(values, default=0)
    points: list[str] = []
    before = None
    for sample, value in zip(trend, values, strict=True):
        x = _WIDTH - 1 - (slot - sample.slot)
        if x < 0:
            continue
        y = _HEIGHT - 1 - round(value / max(highest, 1) * (_HEIGHT - 2), 1)
        points.append(f"{'L' if before == sample.slot - 1 else 'M'}{x} {y:g}")
        before = sample.slot
    text = f"{label}: {name(highest)}; at the end {name(values[-1])}." if values else "No history yet."
    return Chart(" ".join([*points, "h0.01"]) if points else "", text)


def _count(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"
