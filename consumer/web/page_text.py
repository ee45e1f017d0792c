"""How the live page writes ids, times and states: the filters of its templates.

Times are published UTC. The page's script writes them relative to now, or in the reader's zone; without it they stay.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from consumer.core import timestamps
from consumer.core.lifecycle import BEFORE, LIVE, PARKED, RANKS

STREAM_PATH: Final = "/events"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_PHASES: Final[Mapping[str, str]] = {
    "opening": "restoring",
    "running": "reading",
    "full": "waiting for memory",
    "blocked": "stopped",
    "fenced": "taken over by another worker",
    "failing": "failing, tries again",
    "closed": "closed",
    "rebalancing": "being reassigned",
}
_MEDIA: Final[Mapping[str, str]] = {
    "cobrowse": "co-browse",
    "internalmessage": "internal message",
    "screenmonitoring": "screen monitoring",
    "screenshare": "screen share",
    "socialexpression": "social expression",
}
_TIME_CLASSES: Final[Mapping[str, str]] = {
    "provider": "the provider",
    "state": "the state",
    "snapshot": "the snapshot, so it is late at most",
}
_MARKED: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|`[^`]+`)")
"""Published times and commands within a sentence."""


def link(conversation_id: str) -> str:
    """The path of a conversation's page."""
    return f"/conversations/{quote(conversation_id, safe='', errors='surrogateescape')}"


def stream(conversation_id: str) -> str:
    """The path of the events that keep a conversation's page up to date."""
    return f"{STREAM_PATH}/{quote(conversation_id, safe='', errors='surrogateescape')}"


def describe_phase(phase: str) -> str:
    """What a partition does, in an operator's words."""
    return _PHASES.get(phase, phase)


def name_medium(media: str) -> str:
    """A medium in words."""
    return _MEDIA.get(media, media)


def state_class(state: str) -> str:
    """The style of a state: by it states of a kind look alike."""
    if state == PARKED:
        return "s-parked"
    rank = RANKS.get(state)
    if rank is None:
        return "s-other"
    if rank == BEFORE:
        return "s-waiting"
    return "s-live" if rank <= LIVE else "s-ended"


def describe_time_class(time_class: str) -> str:
    """What a time is taken from, in words."""
    return _TIME_CLASSES.get(time_class, time_class)


def mark_up(sentence: str) -> Markup:
    """A sentence whose published times are shown as all others are, and its commands as such."""
    pieces = _MARKED.split(sentence)
    return Markup("").join(_mark(piece) if index % 2 else piece for index, piece in enumerate(pieces))


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers in words that stay short."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)  # noqa: RUF001 - as in all tables


def age(published: str) -> Markup:
    """A published time of which the reader wants to know how long ago it was."""
    return Markup('<time class="age" datetime="{}">{}</time>').format(published, _clock(published))


def ago(published: str) -> Markup:
    """The same, in the middle of a sentence."""
    return Markup('<time class="age ago" datetime="{}">{}</time>').format(published, _clock(published))


def moment(published: str) -> Markup:
    """A published time that is shown exactly. It may break between date and clock on a narrow screen."""
    date, _, clock = _clock(published).partition(" ")
    return Markup('<time class="moment" datetime="{}">{} <span class="clock">{}</span></time>').format(
        published, date, clock
    )


def duration(milliseconds: int | None) -> str:
    """A duration in its two largest units."""
    if milliseconds is None:
        return "–"  # noqa: RUF001 - the dash that means no value in all tables
    seconds = milliseconds / 1_000
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def number(count: int) -> str:
    """A count, with thousands apart."""
    return f"{count:,}"


def _mark(piece: str) -> Markup:
    return Markup("<code>{}</code>").format(piece.strip("`")) if piece.startswith("`") else moment(piece)


def _clock(published: str) -> str:
    return published.removesuffix("Z").replace("T", " ")


FILTERS: Final = {
    "link": link,
    "stream": stream,
    "phase": describe_phase,
    "medium": name_medium,
    "state_class": state_class,
    "time_class": describe_time_class,
    "mark_up": mark_up,
    "ranges": ranges,
    "age": age,
    "ago": ago,
    "moment": moment,
    "utc": timestamps.to_text,
    "duration": duration,
    "number": number,
}
