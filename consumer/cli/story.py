"""A conversation in lines for people: what is known, what happened, and what each record did."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consumer.cli.columns import columns
from consumer.core.explain import Effect, Explanation
from schemas.query import CommunicationView
from schemas.state import ConversationState
from schemas.transition import Transition

_TOLD_LENGTH_MAX = 120


def state_lines(
    state: ConversationState, partition: int, shown: Sequence[CommunicationView], as_of: str | None
) -> Iterator[str]:
    """The conversation as a heading, a table of communications and a table of what happened, oldest first."""
    live = sum(each.live for each in shown)
    yield f"conversation {state.conversation_id}"
    yield f"partition {partition}, last changed by the record at offset {state.source.offset}"
    yield f"newest snapshot {state.snapshot_time}; {live} of {len(shown)} communications live" + (
        f" as of {as_of}, as known now" if as_of else ""
    )
    if not shown:
        return
    yield ""
    yield from columns(
        [
            ("#", "media", "state", "since", "live", "purpose", "disconnect", "communication", "participant", "user",
             "queue"),
            *(
                (str(number), each.media, each.state, each.state_time, "yes" if each.live else "no",
                 each.purpose or "", each.disconnect_type or "", each.communication_id or "", each.participant_id,
                 each.user_id or "", each.queue_id or "")
                for number, each in enumerate(shown, 1)
            ),
        ]
    )  # fmt: skip
    yield ""
    told = [
        (one.event_time, number, one) for number, each in enumerate(shown, 1) for one in each.transitions
    ]  # fmt: skip
    told.sort(key=lambda one: (one[0], one[1]))  # stable: within a communication the order is the lifecycle's
    yield from columns(
        [
            ("time", "#", "media", "from", "to", "after", "time of"),
            *(
                (time, str(number), shown[number - 1].media, one.from_state or "", one.to_state,
                 duration(one.milliseconds_in_from), one.time_class)
                for time, number, one in told
            ),
        ]
    )  # fmt: skip


Numbers = Mapping[tuple[str, str, str | None], int]
"""The numbers of communications in the table, by participant, media and communication id."""


def numbers(shown: Sequence[CommunicationView]) -> Numbers:
    """The numbers that `state_lines` gives."""
    return {(each.participant_id, each.media, each.communication_id): number for number, each in enumerate(shown, 1)}


def duration(milliseconds: int | None) -> str:
    """A time span as people read it, empty for none."""
    if milliseconds is None:
        return ""
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1_000:.3f}".rstrip("0").rstrip(".")
    return " ".join(f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m")) if count) + (
        f" {seconds}s" if hours or minutes else f"{seconds}s"
    )


def record_lines(told: Explanation, numbered: Numbers, *, consumed: bool) -> Iterator[str]:
    """What one record did: a line for the record, and one for each effect."""
    reason = f" ({told.reason}{': ' if told.detail else ''}{told.detail})" if told.reason else ""
    yield ""
    yield (
        f"offset {told.offset}  snapshot {told.snapshot_time or '-'}  {told.disposition}{reason}"
        f"{'' if consumed else '  not consumed yet'}"
    )
    if told.notes:
        yield f"    noted: {', '.join(told.notes)}"
    yield from (f"    {_effect(each, numbered)}" for each in told.effects)
    yield from (f"    {_operation(each, numbered)}" for each in told.transitions)
    if told.disposition == "applied" and not told.effects and not told.transitions:
        yield "    nothing but a newer snapshot time"


def end_lines(count: int, offsets: tuple[int, int], committed: int, *, explains: bool) -> Iterator[str]:
    """What the records come to: `offsets` are those that the partition of the input still holds."""
    begin, end = offsets
    yield ""
    yield f"{count} records among the input's offsets {begin} to {end}; the group has consumed those before {committed}"
    if begin:
        yield f"what was before offset {begin} is deleted: earlier records of this conversation may be gone"
    yield f"the records consumed {'explain' if explains else 'do not explain'} the published state"


def _owner(participant_id: str, media: str, communication_id: str | None, numbered: Numbers) -> str:
    number = numbered.get((participant_id, media, communication_id))
    if number is not None:
        return f"#{number} {media}"
    return f"{media} {communication_id or 'shown without an id'} of participant {participant_id}"


def _effect(each: Effect, numbered: Numbers) -> str:
    owner = f"participant {each.participant_id}"
    if each.media is not None:
        owner = _owner(each.participant_id, each.media, each.communication_id, numbered)
    match each.kind:
        case "observation_added":
            told = f"observed {each.what} @ {_dated(each.after)}"
        case "observation_dropped":
            told = f"observation dropped: {each.what} @ {_dated(each.before)} (park cycles are capped)"
        case "time_lowered":
            told = f"better time of {each.what}: {_dated(each.before)} -> {_dated(each.after)}"
        case "time_kept":
            told = f"time of {each.what} kept: {_dated(each.after)}, against {_dated(each.shown)}"
        case "detail_won":
            told = f"{each.what}: {_value(each.before)} -> {_value(each.after)}"
        case "detail_lost":
            told = f"{each.what}: {_value(each.shown)} lost to {_value(each.after)}"
        case "detail_dropped":
            told = f"{each.what}: {_value(each.before)} dropped (what showed it counts elsewhere)"
        case "placed":
            told = f"counts as {each.after}" + (f", was {each.before}" if each.before else "")
    return f"{owner}: {told}"


def _operation(each: Transition, numbered: Numbers) -> str:
    sign = "+ asserted" if each.op == "assert" else "- retracted"
    owner = _owner(each.participant_id, each.media, each.communication_id, numbered)
    return f"{owner}: {sign} {each.from_state or 'nothing'} -> {each.to_state} @ {each.event_time} {each.time_class}"


def _dated(told: dict[str, str]) -> str:
    return f"{told['time']} {told['timeClass']}"


def _value(told: Any) -> str:
    text = "nothing" if told is None else repr(told)
    return text if len(text) <= _TOLD_LENGTH_MAX else f"{text[:_TOLD_LENGTH_MAX]}..."
