"""Read the details of participants and communications from the wire.

Enumerations are folded, secrets are replaced by digests, and personal data is left behind. An empty text is no value.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from consumer.core.lifecycle import fold_case
from schemas.inbound import (
    Call,
    Callback,
    Chat,
    CobrowseSession,
    Communication,
    Email,
    FlatParticipant,
    Message,
    Participant,
    Reference,
    RoutedCommunication,
    SocialExpression,
    WireTime,
    Wrapup,
)
from schemas.state import CommunicationDetails, Media, ParticipantDetails

CONTROLLED_MAX = 2_000
"""A longer list of controlled participants is left out."""
_DURATION_MAX_S = 2**53  # beyond it a JSON number is not exact

ReadTime = Callable[[WireTime], str]
"""Gives a time as published, empty where it is absent or implausible."""


def read_participant(participant: Participant) -> ParticipantDetails:
    """The details of a participant of the nested shape."""
    return ParticipantDetails(
        purpose=_fold_optional(participant.purpose),
        user_id=participant.user_id or None,
        queue_id=participant.queue_id or None,
        team_id=participant.team_id or None,
        external_contact_id=participant.external_contact_id or None,
        wrapup_required=participant.wrapup_required,
    )


def read_flat_participant(participant: FlatParticipant) -> ParticipantDetails:
    """The details of a participant of the flat shape."""
    return ParticipantDetails(
        purpose=_fold_optional(participant.purpose),
        user_id=_get_id(participant.user),
        queue_id=_get_id(participant.queue),
        team_id=_get_id(participant.team),
        external_contact_id=_get_id(participant.external_contact),
        wrapup_required=participant.wrapup_required,
    )


def read_communication(communication: Communication, read_time: ReadTime, digest_key: bytes) -> CommunicationDetails:
    """The details of a communication of the nested shape."""
    details = _read_medium(communication, digest_key)
    if isinstance(communication, RoutedCommunication):
        details["peer_id"] = communication.peer_id or None
        details["after_call_work_required"] = communication.after_call_work_required
        work = communication.after_call_work
        if work is not None:
            details["after_call_work_state"] = _fold_optional(work.state)
            details["after_call_work_start_time"] = read_time(work.start_time) or None
            details["after_call_work_end_time"] = read_time(work.end_time) or None
        if communication.wrapup is not None:
            _add_wrapup(details, communication.wrapup)
    return _build(communication, details)


def read_flat_communication(
    participant: FlatParticipant, medium: Media, read_time: ReadTime, digest_key: bytes
) -> CommunicationDetails:
    """The details of the one communication on a participant of the flat shape."""
    details: dict[str, Any] = {
        "direction": _fold_optional(participant.direction),
        "held": participant.held,
        "peer_id": participant.peer or None,
        "after_call_work_start_time": read_time(participant.start_acw_time) or None,
        "after_call_work_end_time": read_time(participant.end_acw_time) or None,
    }
    if medium == "cobrowse":
        _add_cobrowse(details, participant, digest_key)
    elif medium == "call":
        details["muted"] = participant.muted
    elif medium == "message":
        details["message_type"] = _fold_optional(participant.type)
    if participant.wrapup is not None:
        _add_wrapup(details, participant.wrapup)
    return _build(participant, details)


def _read_medium(communication: Communication, digest_key: bytes) -> dict[str, Any]:
    """The details that only some media have, by field."""
    details: dict[str, Any] = {}
    if type(communication) is CobrowseSession:  # exact types, as decoded: isinstance takes five times as long
        _add_cobrowse(details, communication, digest_key)
        details["room_digest"] = _digest(communication.room_id, digest_key)
    elif type(communication) is Call:
        details["direction"] = _fold_optional(communication.direction)
        details["held"] = communication.held
        details["muted"] = communication.muted
    elif type(communication) is Message:
        details["direction"] = _fold_optional(communication.direction)
        details["held"] = communication.held
        details["message_type"] = _fold_optional(communication.type)
    elif type(communication) is Email or type(communication) is Callback:
        details["direction"] = _fold_optional(communication.direction)
        details["held"] = communication.held
    elif type(communication) is Chat or type(communication) is SocialExpression:
        details["held"] = communication.held
    return details


def _build(communication: Communication | FlatParticipant, details: dict[str, Any]) -> CommunicationDetails:
    return CommunicationDetails(  # by position, which is measurably faster
        _fold_optional(communication.initial_state),
        _fold_optional(communication.disconnect_type),
        communication.provider or None,
        **details,
    )


def _add_cobrowse(details: dict[str, Any], session: CobrowseSession | FlatParticipant, digest_key: bytes) -> None:
    details["cobrowse_session_digest"] = _digest(session.cobrowse_session_id, digest_key)
    details["cobrowse_role"] = _fold_optional(session.cobrowse_role)
    if session.controlling is not None:
        if len(session.controlling) > CONTROLLED_MAX:
            return
        details["controlling"] = sorted({controlled for controlled in session.controlling if controlled})
    if session.viewer_url:
        details["viewable"] = True


def _add_wrapup(details: dict[str, Any], wrapup: Wrapup) -> None:
    details["wrapup_code"] = wrapup.code or None
    duration = wrapup.duration_seconds
    if duration is not None and -_DURATION_MAX_S <= duration <= _DURATION_MAX_S:
        details["wrapup_duration_seconds"] = int(duration)


def _digest(secret: str | None, key: bytes) -> str | None:
    """What is kept of an id that grants access to what it names."""
    return hashlib.blake2b(secret.encode(), digest_size=16, key=key).hexdigest() if secret else None


def _get_id(reference: Reference | None) -> str | None:
    return None if reference is None else reference.id or None


def _fold_optional(value: str | None) -> str | None:
    return fold_case(value) if value else None
