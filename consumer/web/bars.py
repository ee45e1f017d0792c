"""What happened to this one? The timeline of a conversation as bars, one a communication. Pure.

Places are in percent of the time from the first event to the end: now while anything is live, else the last event.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from consumer.core import timestamps
from consumer.web.page_text import duration
from schemas.query import CommunicationView, StandingTransition, Timeline
from schemas.transition import Transition

_WIDTH_MIN: Final = 0.6
"""The width of a state that took no time."""
_LETTER, _MARGIN = 7.5, 10
_WIDE, _NARROW = 9.0, 2.9
"""Pixels that a percent of a bar has at least, on a desktop and on a phone; those of a letter, and beside a name."""


class Segment(Struct, frozen=True):
    """The time in a state."""

    state: str
    x: float
    width: float
    lasted: str
    label: str
    """All of it in words."""
    fits: str
    """Where its name fits in: `everywhere`, `wide` screens, or `` for nowhere."""


class Mark(Struct, frozen=True):
    """A transition that was published and corrected since."""

    x: float
    label: str


class Bar(Struct, frozen=True):
    """A communication."""

    view: CommunicationView
    segments: list[Segment]
    marks: list[Mark]
    label: str
    """All of it in words."""


class Picture(Struct, frozen=True):
    """The bars of a conversation between two published times."""

    begin: str
    end: str
    lasted: str
    bars: list[Bar]


class _Scale(Struct, frozen=True):
    """From times to places."""

    begin_ms: int
    end_ms: int

    def place(self, time_ms: int) -> float:
        length_ms = max(1, self.end_ms - self.begin_ms)
        return round(100 * min(max(0, time_ms - self.begin_ms), length_ms) / length_ms, 2)


def draw(timeline: Timeline, operations: Sequence[Transition], now_ms: int, bars_max: int) -> Picture | None:
    """The first bars of a conversation; None if nothing had begun.

    `operations` are those that are known of it, retractions among them.
    """
    views = timeline.communications
    if not views:
        return None
    times = [timestamps.to_ms(transition.event_time) for view in views for transition in view.transitions]
    end_ms = max(times)
    if timeline.as_of is not None:
        end_ms = max(end_ms, timestamps.to_ms(timeline.as_of))
    elif timeline.live:
        end_ms = max(end_ms, now_ms)
    scale = _Scale(min(times), end_ms)
    seen = [one for one in operations if timeline.as_of is None or one.event_time <= timeline.as_of]
    corrected = _find_corrected(views, seen)
    return Picture(
        timestamps.to_text(scale.begin_ms),
        timestamps.to_text(end_ms),
        duration(end_ms - scale.begin_ms),
        [_draw_bar(view, scale, corrected) for view in views[:bars_max]],
    )


def _find_corrected(views: Sequence[CommunicationView], operations: Sequence[Transition]) -> list[Transition]:
    """The retracted transitions that do not stand again."""
    standing = {transition.id for view in views for transition in view.transitions}
    retracted = {operation.id: operation for operation in operations if operation.op == "retract"}
    return [operation for operation in retracted.values() if operation.id not in standing]


def _draw_bar(view: CommunicationView, scale: _Scale, corrected: Sequence[Transition]) -> Bar:
    steps = view.transitions
    ends_ms = [timestamps.to_ms(step.event_time) for step in steps[1:]]
    last_ms = timestamps.to_ms(steps[-1].event_time)
    ends_ms.append(scale.end_ms if view.live else last_ms)
    segments = [_draw_segment(step, end_ms, scale) for step, end_ms in zip(steps, ends_ms, strict=True)]
    marks = [
        Mark(
            scale.place(timestamps.to_ms(operation.event_time)),
            f"corrected: {_describe(operation)} at {operation.event_time}",
        )
        for operation in corrected
        if (operation.participant_id, operation.media, operation.communication_id)
        == (view.participant_id, view.media, view.communication_id)
    ]
    said = [segment.label for segment in segments] + [mark.label for mark in marks]
    return Bar(view, segments, marks, "; ".join(said))


def _describe(operation: Transition) -> str:
    return f"{operation.from_state} → {operation.to_state}" if operation.from_state else operation.to_state


def _draw_segment(step: StandingTransition, end_ms: int, scale: _Scale) -> Segment:
    begin_ms = timestamps.to_ms(step.event_time)
    x = min(scale.place(begin_ms), 100 - _WIDTH_MIN)
    width = max(_WIDTH_MIN, round(scale.place(end_ms) - x, 2))
    length = len(step.to_state) * _LETTER + _MARGIN
    fits = "everywhere" if length < width * _NARROW else "wide" if length < width * _WIDE else ""
    lasted = duration(end_ms - begin_ms) if end_ms > begin_ms else ""
    label = f"{step.to_state} from {step.event_time}{f', for {lasted}' if lasted else ''}"
    return Segment(step.to_state, x, width, lasted, label, fits)
