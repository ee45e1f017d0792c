"""Read a record's value in stages, down to its envelope: limits, frames, JSON. Total: no input makes a stage raise.

A stage takes a bounded time, so that a long value can be read with pauses in between (`step.LongStep`).
"""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from consumer.core import envelope, framing, surrogates
from consumer.core.envelope import NULL, Envelope
from consumer.core.escapes import JsonText
from consumer.core.extent import ELEMENTS_MAX, NESTING_MAX, find_excess
from consumer.core.framing import SNAPSHOTS_MAX, Framed
from consumer.core.reasons import DeadLetterReason, IgnoredReason
from consumer.core.record import Record
from consumer.core.rules import Rules
from schemas.inbound import LIST_LENGTH_MAX, TEXT_LENGTH_MAX

_TOO_LONG: Final = (
    f"Expected `str` of length <= {TEXT_LENGTH_MAX}",
    f"Expected `array` of length <= {LIST_LENGTH_MAX}",
)
"""How msgspec begins to say that a text or a list is too long."""


class NoUpdate(Struct, frozen=True, gc=False):
    """A record that is no conversation update."""

    reason: IgnoredReason


class Rejected(Struct, frozen=True, gc=False):
    """A conversation update that cannot be used."""

    reason: DeadLetterReason
    where: str = ""
    """The broken rule and where it was broken: a path of property names, never a value."""
    conversation_id: str = ""
    """The id in the body, where the record's key is another."""


class Envelopes(Struct, frozen=True, gc=False):
    """The envelopes in a record that holds several values, without those that are no updates."""

    opened: list[tuple[int, Envelope]]
    """With the index of the value. At least one."""
    ignored: NoUpdate | None


class Checked(Struct, frozen=True, gc=False):
    """A value within the limits of nesting and elements. A long one has no lone surrogate escapes."""

    framed: Framed


class Unread(Struct, frozen=True, gc=False):
    """A value that is no update as it stands, and may be a frame of one."""

    framed: Framed
    judged: "Envelope | Rejected"
    """What it is if it is no frame."""


class Parts(Struct, frozen=True, gc=False):
    """Several values in one record, none of which has been read."""

    parts: list[Framed]


Stage = Framed | Checked | Unread | Parts
"""A value that is still to be read."""
Opened = Envelope | Envelopes


def open_envelope(record: Record, rules: Rules) -> Opened | NoUpdate | Rejected:
    """Read all stages: the envelope of a value that is within the limits, without its frames."""
    opened: Stage | Opened | NoUpdate | Rejected = begin(record, rules)
    while isinstance(opened, Stage):
        opened = read(opened)
    return opened


def begin(record: Record, rules: Rules) -> Framed | NoUpdate | Rejected:
    """The value of a record that is small enough to be read."""
    value = record.value
    if record.unread:
        return Rejected("too_large", record.unread)
    if value is None:
        return NoUpdate("tombstone")
    if len(value) > rules.record_bytes_max:
        return Rejected("too_large", f"{len(value)} bytes, record_bytes_max is {rules.record_bytes_max}")
    return framing.strip(value)


def split(record: Record, rules: Rules) -> list[Record]:
    """A record for each value that a record holds; the record itself where that is one, or cannot be read."""
    stage: Stage | Opened | NoUpdate | Rejected = begin(record, rules)
    while isinstance(stage, Stage):
        opened = read(stage)
        if isinstance(stage, Parts) and isinstance(opened, Envelopes):
            return [replace(record, value=part.value) for part in stage.parts]
        stage = opened
    return [record]


def read(stage: Stage) -> Stage | Opened | NoUpdate | Rejected:
    """The next stage of reading a value: its envelope, what is within its outermost frame, or the values it holds."""
    match stage:
        case Framed():
            return _check(stage)
        case Checked():
            return _parse(stage.framed)
        case Unread():
            return _unframe(stage)
        case Parts():
            return _read_parts(stage.parts)


def _check(framed: Framed) -> Checked | NoUpdate | Rejected:
    text = JsonText(framed.value)
    excess = find_excess(text)
    if excess == "too_deep":
        return Rejected("too_deep", f"{_name_frames(framed)}nested deeper than {NESTING_MAX}")
    if excess == "too_many":
        return Rejected("too_large", f"{_name_frames(framed)}more than {ELEMENTS_MAX} elements")
    if framed.framings and framed.value == bytes(NULL):
        return NoUpdate("tombstone")
    return Checked(replace(framed, value=surrogates.replace_lone(text)) if _is_long(framed) else framed)


def _is_long(framed: Framed) -> bool:
    return len(framed.value) >= envelope.LONG_BYTES


def _name_frames(framed: Framed) -> str:
    return "".join(f"{kind}: " for kind in framed.framings)


def _parse(framed: Framed) -> Envelope | Unread | NoUpdate:
    try:
        opened = envelope.parse(framed.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unread(framed, reject(error, _name_frames(framed)))
    if opened.is_bare and (opened.body is None or opened.body.participants is None):
        return Unread(framed, opened)
    return _accept(framed, opened)


def _unframe(unread: Unread) -> Envelope | Framed | Parts | NoUpdate | Rejected:
    framed = unread.framed
    if not _is_long(framed):
        framed = replace(framed, value=surrogates.replace_lone(JsonText(framed.value)))
    inner = framing.unwrap(framed)
    if inner is not None:
        return inner
    if isinstance(unread.judged, Envelope):
        return _accept(framed, unread.judged)
    parts = framing.split(framed)
    if parts is None:
        return unread.judged
    if len(parts) > SNAPSHOTS_MAX:
        return Rejected("too_large", f"more than {SNAPSHOTS_MAX} values in one record")
    return Parts(parts)


def _accept(framed: Framed, opened: Envelope) -> Envelope | NoUpdate:
    if opened.topic.ignored is not None:
        return NoUpdate(opened.topic.ignored)
    opened.framings = framed.framings
    return opened


def _read_parts(parts: list[Framed]) -> Envelopes | NoUpdate | Rejected:
    envelopes: list[tuple[int, Envelope]] = []
    ignored: NoUpdate | None = None
    for index, part in enumerate(parts):
        opened: Stage | Opened | NoUpdate | Rejected = part
        while isinstance(opened, Stage):
            opened = read(opened)
        match opened:
            case Envelope():
                envelopes.append((index, opened))
            case NoUpdate():
                ignored = ignored or opened
            case Rejected():
                return replace(opened, where=f"[{index}]: {opened.where}")
            case Envelopes():
                raise AssertionError("a part has no parts")
    if envelopes:
        return Envelopes(envelopes, ignored)
    assert ignored is not None, "there are parts"
    return ignored


def reject(error: msgspec.DecodeError | UnicodeDecodeError, where: str = "") -> Rejected:
    """What msgspec could not decode, as a dead letter; `where` says in what."""
    match error:
        case msgspec.ValidationError():
            reason: DeadLetterReason = "too_large" if str(error).startswith(_TOO_LONG) else "wrong_type"
            return Rejected(reason, f"{where}{error}")
        case UnicodeDecodeError():
            return Rejected("bad_utf8", f"{where}{error.reason}")
        case _:
            return Rejected("bad_json", f"{where}{error}")
