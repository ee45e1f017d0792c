"""Decode a record into a snapshot of a conversation. Total: no input makes `decode` raise.

The envelope is parsed first, because the topic decides the shape of the participants in the body.
"""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from consumer.core import envelope, framing, timestamps
from consumer.core.details import read_conversation
from consumer.core.envelope import NULL, Envelope
from consumer.core.event_time import TimeReader
from consumer.core.framing import Framing
from consumer.core.normalize import normalize
from consumer.core.reading import Envelopes, NoUpdate, Opened, Rejected, open_envelope, reject
from consumer.core.reasons import Anomaly
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.updates import ParticipantUpdate
from schemas.inbound import Conversation
from schemas.state import ConversationDetails, Media

PARTICIPANTS_MAX: Final = 2_000
"""Participants that a record may list. The state of so many would be too large anyway, for the length of their ids."""


class Snapshot(Struct, frozen=True, gc=False):
    """A conversation update: what the whole conversation looked like at `time_ms`."""

    conversation_id: str
    time_ms: int
    time: str
    """`time_ms` as published."""
    template: str
    participants: list[ParticipantUpdate | None]
    details: ConversationDetails | None = None
    """Those of the conversation as a whole; None if it shows none."""
    anomalies: tuple[Anomaly, ...] = ()
    """Anomalies of the record as a whole."""
    excess: str = ""
    """Which limit the participants exceed; then there are none here."""
    framings: tuple[Framing, ...] = ()
    """What was around the value, and how the key spells the conversation id."""
    others: "tuple[Snapshot, ...]" = ()
    """Further snapshots in the same record, none of which is newer; by time."""


Decoded = Snapshot | NoUpdate | Rejected


class Identity(Struct, frozen=True, gc=False):
    """The conversation that a record belongs to, and its snapshot time."""

    conversation_id: str
    time_ms: int | None
    """None if no time is readable."""


def decode(record: Record, rules: Rules) -> Decoded:
    """Decode the value of a record, or say why it is not used."""
    opened = open_envelope(record, rules)
    return decode_body(record, opened, rules) if isinstance(opened, Envelope | Envelopes) else opened


def decode_body(record: Record, opened: Opened, rules: Rules) -> Decoded:
    """Decode what envelopes hold. Of several ones all or none are used."""
    if isinstance(opened, Envelope):
        return _decode_one(record, opened, rules)
    snapshots: list[Snapshot] = []
    ignored, listed = opened.ignored, 0
    for index, envelope_of_part in opened.opened:
        decoded = _decode_one(record, envelope_of_part, rules)
        match decoded:
            case Snapshot():
                snapshots.append(decoded)
                listed += sum([update.listed for update in decoded.participants if update is not None])
                if decoded.excess or listed > rules.communications_max:
                    excess = f"{listed} communications, communications_max is {rules.communications_max}"
                    return replace(decoded, excess=decoded.excess or excess, participants=[])
            case NoUpdate():
                ignored = ignored or decoded
            case Rejected():
                return replace(decoded, where=f"[{index}]: {decoded.where}")
    if not snapshots:
        assert ignored is not None, "there was an envelope"
        return ignored
    if len({snapshot.conversation_id for snapshot in snapshots}) > 1:
        return Rejected("key_mismatch", "several conversations in one record: rekey splits them")
    *others, newest = sorted(snapshots, key=lambda snapshot: snapshot.time_ms)
    framings = dict.fromkeys(kind for snapshot in snapshots for kind in snapshot.framings)
    return replace(newest, others=tuple(others), framings=tuple(framings))


def _decode_one(record: Record, opened: Envelope, rules: Rules) -> Decoded:
    body, topic = opened.body, opened.topic
    time_ms = envelope.find_snapshot_time(record, opened.event_time)
    time = "" if time_ms is None else timestamps.to_text(time_ms)
    latest_ms = timestamps.LATEST_MS if time_ms is None else time_ms + rules.future_skew_max_s * 1_000
    participants = _decode_participants(body, topic.medium, rules, time, latest_ms)
    excess = ""
    if isinstance(participants, Rejected):
        if participants.reason != "too_large":
            return participants
        excess, participants = participants.where, []
    anomalies: tuple[Anomaly, ...] = ()
    if topic.medium is None and _is_flat(participants):
        if topic.template == "none":
            return NoUpdate("bare_flat")
        anomalies = ("flat_body",)
    if body is None or not body.id:
        return Rejected("no_conversation_id", "a conversation update without an id")
    if time_ms is None:
        time_ms = _find_newest_time(participants)
        if time_ms is None:
            return Rejected("no_time", "no readable snapshot time")
        time = timestamps.to_text(time_ms)
        anomalies = (*anomalies, "time_of_body")
    times = TimeReader(timestamps.to_text(min(latest_ms, timestamps.LATEST_MS)))
    details = read_conversation(body, times)
    if times.implausible:
        implausible: list[Anomaly] = ["implausible_time"] * times.implausible
        anomalies = (*anomalies, *implausible)
    spelling = framing.compare_key(record.key, body.id)
    if spelling is None:
        problem = "missing" if record.key is None else "different"
        return Rejected("key_mismatch", f"the record key is {problem}: it should be the conversation id", body.id)
    return Snapshot(
        conversation_id=body.id,
        time_ms=time_ms,
        time=time,
        template=topic.template,
        participants=participants,
        details=details,
        anomalies=anomalies,
        excess=excess,
        framings=(*opened.framings, *spelling),
    )


def identify(record: Record, rules: Rules) -> Identity | None:
    """The conversation and snapshot time of a conversation update, whatever its key and its participants are.

    None for any other record, for one whose id cannot be read, and for one that holds several values. Total, like
    `decode`, and agrees with it.
    """
    opened = open_envelope(record, rules)
    body = opened.body if isinstance(opened, Envelope) else None
    if not isinstance(opened, Envelope) or body is None or not body.id:
        return None
    time_ms = envelope.find_snapshot_time(record, opened.event_time)
    if time_ms is None:
        participants = _decode_participants(body, opened.topic.medium, rules, "", timestamps.LATEST_MS)
        time_ms = None if isinstance(participants, Rejected) else _find_newest_time(participants)
    return Identity(body.id, time_ms)


def _decode_participants(
    body: Conversation | None, medium: Media | None, rules: Rules, time: str, latest_ms: int
) -> list[ParticipantUpdate | None] | Rejected:
    """Decode all participants, a null as None; rejected if they are more, or list more, than can be kept."""
    updates: list[ParticipantUpdate | None] = []
    raw_participants = () if body is None else body.participants or ()
    if len(raw_participants) > PARTICIPANTS_MAX:
        return Rejected("too_large", f"{len(raw_participants)} participants, at most {PARTICIPANTS_MAX} are read")
    key, listed, listed_max = rules.digest_key, 0, rules.communications_max
    for index, raw in enumerate(raw_participants):
        if raw == NULL:
            updates.append(None)
            continue
        try:
            update = normalize(raw, medium, key, time, latest_ms, listed_max)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return reject(error, f"participants[{index}]: ")
        listed += update.listed
        if listed > listed_max:
            return Rejected("too_large", f"{listed} communications, communications_max is {listed_max}")
        updates.append(update)
    return updates


def _is_flat(participants: list[ParticipantUpdate | None]) -> bool:
    """Whether a body that should be nested is flat: participants have a state, and none has an array."""
    for participant in participants:
        if participant is not None and participant.lists_communications:
            return False
    return any(participant is not None and participant.has_state for participant in participants)


def _find_newest_time(participants: list[ParticipantUpdate | None]) -> int | None:
    """The newest plausible time in a body: its snapshot is not older than that."""
    newest = max([participant.newest for participant in participants if participant is not None], default="")
    return timestamps.to_ms(newest) if newest else None
