"""Render a conversation as lines of text: its state, what happened in it, and what each record changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consumer.cli.tables import align, stack
from consumer.core import timestamps
from consumer.tools.explain import Effect, Explanation
from schemas.query import CommunicationView
from schemas.state import ConversationState
from schemas.transition import Transition

_VALUE_LENGTH_MAX = 120

Numbers = Mapping[tuple[str, str, str | None], int]
"""The number of each communication in the table, by participant, media and communication id."""


def number_communications(views: Sequence[CommunicationView]) -> Numbers:
    """The numbers that `state_lines` shows."""
    return {(view.participant_id, view.media, view.communication_id): number for number, view in enumerate(views, 1)}


def state_lines(
    state: ConversationState,
    partition: int,
    views: Sequence[CommunicationView],
    as_of: str | None,
    width: int | None = None,
) -> Iterator[str]:
    """The conversation as a heading, a table of communications, and a table of transitions, oldest first.

    `width` is how many columns there are, None for as many as it takes.
    """
    live = sum(view.live for view in views)
    yield f"conversation {state.conversation_id}"
    yield f"partition {partition}, last changed by the record at offset {state.source.offset}"
    yield f"newest snapshot {state.snapshot_time}; {live} of {len(views)} communications live" + (
        f" as of {as_of}, as known now" if as_of else ""
    )
    if not views:
        return
    yield ""
    yield from stack(
        [
            ("#", "media", "state", "since", "live", "purpose", "disconnect", "communication", "participant", "user",
             "queue"),
            *(
                (str(number), view.media, view.state, view.state_time, "yes" if view.live else "no",
                 view.purpose or "", view.disconnect_type or "", view.communication_id or "", view.participant_id,
                 view.user_id or "", view.queue_id or "")
                for number, view in enumerate(views, 1)
            ),
        ],
        width,
        columns=6,
    )  # fmt: skip
    yield ""
    transitions = [
        (transition.event_time, number, transition)
        for number, view in enumerate(views, 1)
        for transition in view.transitions
    ]
    transitions.sort(key=lambda row: row[:2])  # stable: within a communication the order stays the lifecycle's
    rows = [
        ("time", "#", "media", "from", "to", "after", "time of"),
        *(
            (event_time, str(number), views[number - 1].media, transition.from_state or "", transition.to_state,
             format_duration(transition.milliseconds_in_from), transition.time_class)
            for event_time, number, transition in transitions
        ),
    ]  # fmt: skip
    table = align(rows)
    if width is not None and max(map(len, table)) > width:  # the number tells the medium
        table = align([(*row[:2], *row[3:]) for row in rows])
    yield from table


def format_duration(milliseconds: int | None) -> str:
    """Hours, minutes and seconds, such as `1h 1m 1.001s`; empty for None."""
    if milliseconds is None:
        return ""
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1_000:.3f}".rstrip("0").rstrip(".")
    return " ".join(f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m")) if count) + (
        f" {seconds}s" if hours or minutes else f"{seconds}s"
    )


def record_lines(explanation: Explanation, numbers: Numbers, *, is_consumed: bool) -> Iterator[str]:
    """A line for the record, then one for each effect and each operation on a transition."""
    detail = f": {explanation.detail}" if explanation.detail else ""
    reason = f" ({explanation.reason}{detail})" if explanation.reason else ""
    yield ""
    yield (
        f"offset {explanation.offset}  snapshot {explanation.snapshot_time or '-'}  {explanation.disposition}{reason}"
        f"{'' if is_consumed else '  not consumed yet'}"
    )
    if explanation.timestamp is not None:
        yield f"    arrived {explanation.timestamp}{_delay(explanation)}"
    if explanation.anomalies:
        yield f"    anomalies: {', '.join(explanation.anomalies)}"
    yield from (f"    {_effect(effect, numbers)}" for effect in explanation.effects)
    yield from (f"    {_operation(transition, numbers)}" for transition in explanation.transitions)
    if explanation.disposition == "applied" and not explanation.effects and not explanation.transitions:
        yield "    nothing but a newer snapshot time"


def _delay(explanation: Explanation) -> str:
    """How much later than its snapshot a record arrived; empty if it did not."""
    snapshot_ms, arrival_ms = timestamps.parse(explanation.snapshot_time), timestamps.parse(explanation.timestamp)
    if snapshot_ms is None or arrival_ms is None or arrival_ms <= snapshot_ms:
        return ""
    return f", {format_duration(arrival_ms - snapshot_ms)} later"


def end_lines(count: int, offsets: tuple[int, int], committed: int, *, explains: bool) -> Iterator[str]:
    """The conclusion; `offsets` are the first of the input partition and the one behind its last."""
    begin, end = offsets
    yield ""
    yield f"{count} records among the input's offsets {begin} to {end}; the group has consumed those before {committed}"
    if begin:
        yield f"what was before offset {begin} is deleted: earlier records of this conversation may be gone"
    yield f"the records consumed {'explain' if explains else 'do not explain'} the published state"


def _owner(participant_id: str, media: str, communication_id: str | None, numbers: Numbers) -> str:
    number = numbers.get((participant_id, media, communication_id))
    if number is not None:
        return f"#{number} {media}"
    return f"{media} {communication_id or 'without an id'} of participant {participant_id}"


def _effect(effect: Effect, numbers: Numbers) -> str:
    owner = f"participant {effect.participant_id}"
    if effect.media is not None:
        owner = _owner(effect.participant_id, effect.media, effect.communication_id, numbers)
    what = effect.what
    match effect.kind:
        case "observation_added":
            change = f"observed {what} @ {_format_observation(effect.after)}"
        case "observation_dropped":
            change = f"observation dropped: {what} @ {_format_observation(effect.before)} (park cycles are capped)"
        case "time_lowered":
            change = (
                f"better time of {what}: {_format_observation(effect.before)} -> {_format_observation(effect.after)}"
            )
        case "time_kept":
            change = (
                f"time of {what} kept: {_format_observation(effect.after)}, against {_format_observation(effect.shown)}"
            )
        case "detail_won":
            change = f"{what}: {_value(effect.before)} -> {_value(effect.after)}"
        case "detail_lost":
            change = f"{what}: {_value(effect.shown)} lost to {_value(effect.after)}"
        case "detail_dropped":
            change = f"{what}: {_value(effect.before)} dropped (what showed it counts elsewhere)"
        case "placed":
            change = f"counts as {effect.after}" + (f", was {effect.before}" if effect.before else "")
    return f"{owner}: {change}"


def _operation(transition: Transition, numbers: Numbers) -> str:
    operation = "+ asserted" if transition.op == "assert" else "- retracted"
    owner = _owner(transition.participant_id, transition.media, transition.communication_id, numbers)
    return (
        f"{owner}: {operation} {transition.from_state or 'nothing'} -> {transition.to_state} @ "
        f"{transition.event_time} {transition.time_class}"
    )


def _format_observation(observation: Mapping[str, str]) -> str:
    return f"{observation['time']} {observation['timeClass']}"


def _value(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _VALUE_LENGTH_MAX else f"{text[:_VALUE_LENGTH_MAX]}..."
