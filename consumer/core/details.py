"""Read the details of conversations, participants and communications from the wire.

Enumerations are folded, secrets are replaced by digests, and personal data is left behind. An empty text is no value.
"""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from consumer.core.event_time import TimeReader
from consumer.core.lifecycle import fold_case
from schemas.inbound import (
    Address,
    Call,
    Callback,
    Chat,
    CobrowseSession,
    Communication,
    Conversation,
    DisconnectReason,
    DivisionMembership,
    Email,
    ErrorInfo,
    FlatParticipant,
    Message,
    Participant,
    Reference,
    RoutedCommunication,
    RoutingData,
    SocialExpression,
    Transfer,
    TransferUser,
    Wrapup,
)
from schemas.state import CommunicationDetails, ConversationDetails, Media, ParticipantDetails
from schemas.state import Transfer as KnownTransfer

CONTROLLED_MAX = 2_000
"""A longer list of controlled participants is left out."""
_NUMBER_MAX = 2**53  # beyond it a JSON number is not exact


class Reading(Struct, frozen=True, gc=False):
    """What the details of one record are read with."""

    times: TimeReader
    digest_key: bytes


def read_participant(participant: Participant, reading: Reading) -> ParticipantDetails:
    """The details of a participant of the nested shape."""
    routing = participant.conversation_routing_data
    details = {} if routing is None else _read_routing(routing)
    if participant.wrapup is not None:
        _add_wrapup(details, participant.wrapup)
    return ParticipantDetails(
        purpose=_fold_optional(participant.purpose),
        user_id=participant.user_id or None,
        queue_id=participant.queue_id or None,
        team_id=participant.team_id or None,
        external_contact_id=participant.external_contact_id or None,
        wrapup_required=participant.wrapup_required,
        group_id=participant.group_id or None,
        consult_participant_id=participant.consult_participant_id or None,
        monitored_participant_id=participant.monitored_participant_id or None,
        coached_participant_id=participant.coached_participant_id or None,
        barged_participant_id=participant.barged_participant_id or None,
        after_call_work_start_time=reading.times.read(participant.start_acw_time) or None,
        after_call_work_end_time=reading.times.read(participant.end_acw_time) or None,
        **details,
    )


def read_flat_participant(participant: FlatParticipant) -> ParticipantDetails:
    """The details of a participant of the flat shape."""
    routing = participant.conversation_routing_data
    return ParticipantDetails(
        purpose=_fold_optional(participant.purpose),
        user_id=_get_id(participant.user),
        queue_id=_get_id(participant.queue),
        team_id=_get_id(participant.team),
        external_contact_id=_get_id(participant.external_contact),
        wrapup_required=participant.wrapup_required,
        group_id=_get_id(participant.group),
        consult_participant_id=participant.consult_participant_id or None,
        monitored_participant_id=participant.monitored_participant_id or None,
        coached_participant_id=participant.coached_participant_id or None,
        barged_participant_id=participant.barged_participant_id or None,
        **({} if routing is None else _read_routing(routing)),
    )


def read_communication(communication: Communication, reading: Reading) -> CommunicationDetails:
    """The details of a communication of the nested shape."""
    details = _read_medium(communication, reading)
    if isinstance(communication, RoutedCommunication):
        details["peer_id"] = communication.peer_id or None
        details["after_call_work_required"] = communication.after_call_work_required
        work = communication.after_call_work
        if work is not None:
            details["after_call_work_state"] = _fold_optional(work.state)
            details["after_call_work_start_time"] = reading.times.read(work.start_time) or None
            details["after_call_work_end_time"] = reading.times.read(work.end_time) or None
        if communication.wrapup is not None:
            _add_wrapup(details, communication.wrapup)
    return _build(communication, details)


def read_flat_communication(participant: FlatParticipant, medium: Media, reading: Reading) -> CommunicationDetails:
    """The details of the one communication on a participant of the flat shape."""
    read_time = reading.times.read
    details: dict[str, Any] = {
        "direction": _fold_optional(participant.direction),
        "peer_id": participant.peer or None,
        "after_call_work_start_time": read_time(participant.start_acw_time) or None,
        "after_call_work_end_time": read_time(participant.end_acw_time) or None,
    }
    _add_hold(details, participant, reading)
    _add_error(details, participant.error_info)
    if medium == "cobrowse":
        _add_cobrowse(details, participant, reading)
    elif medium == "call":
        details["muted"] = participant.muted
    elif medium == "message":
        details["message_type"] = _fold_optional(participant.type)
    elif medium == "callback":
        details["callback_scheduled_time"] = reading.times.read_plan(participant.callback_scheduled_time) or None
    if participant.wrapup is not None:
        _add_wrapup(details, participant.wrapup)
    return _build(participant, details)


def read_conversation(body: Conversation, times: TimeReader) -> ConversationDetails | None:
    """The details of a conversation as a whole; None if it shows none."""
    if not body.external_tag and body.divisions is None and body.recent_transfers is None:
        return None
    return ConversationDetails(
        external_tag=body.external_tag or None,
        division_ids=None if body.divisions is None else _list_division_ids(body.divisions),
        recent_transfers=None if body.recent_transfers is None else _list_transfers(body.recent_transfers, times),
    )


def _read_medium(communication: Communication, reading: Reading) -> dict[str, Any]:
    """The details that only some media have, by field."""
    details: dict[str, Any] = {}
    if type(communication) is CobrowseSession:  # exact types, as decoded: isinstance takes five times as long
        _add_cobrowse(details, communication, reading)
        details["room_digest"] = _digest(communication.room_id, reading.digest_key)
        details["endpoint_digest"] = _digest_endpoint(communication.endpoint, reading.digest_key)
    elif type(communication) is Call:
        details["direction"] = _fold_optional(communication.direction)
        details["muted"] = communication.muted
        details["disconnect_reasons"] = _list_reasons(communication.disconnect_reasons)
        _add_hold(details, communication, reading)
        _add_error(details, communication.error_info)
    elif type(communication) is Message:
        details["direction"] = _fold_optional(communication.direction)
        details["message_type"] = _fold_optional(communication.type)
        _add_hold(details, communication, reading)
        _add_error(details, communication.error_info)
    elif type(communication) is Email:
        details["direction"] = _fold_optional(communication.direction)
        _add_hold(details, communication, reading)
        _add_error(details, communication.error_info)
    elif type(communication) is Callback:
        details["direction"] = _fold_optional(communication.direction)
        details["callback_scheduled_time"] = reading.times.read_plan(communication.callback_scheduled_time) or None
        _add_hold(details, communication, reading)
    elif type(communication) is Chat or type(communication) is SocialExpression:
        _add_hold(details, communication, reading)
    return details


def _build(communication: Communication | FlatParticipant, details: dict[str, Any]) -> CommunicationDetails:
    return CommunicationDetails(  # by position, which is measurably faster
        _fold_optional(communication.initial_state),
        _fold_optional(communication.disconnect_type),
        communication.provider or None,
        **details,
    )


def _add_hold(
    details: dict[str, Any],
    communication: Call | Callback | Chat | Email | Message | SocialExpression | FlatParticipant,
    reading: Reading,
) -> None:
    details["held"] = communication.held
    if communication.start_hold_time is not None:
        details["hold_start_time"] = reading.times.read(communication.start_hold_time) or None


def _add_error(details: dict[str, Any], error: ErrorInfo | None) -> None:
    if error is not None:
        details["error_code"] = error.code or None


def _add_cobrowse(details: dict[str, Any], session: CobrowseSession | FlatParticipant, reading: Reading) -> None:
    details["cobrowse_session_digest"] = _digest(session.cobrowse_session_id, reading.digest_key)
    details["cobrowse_role"] = _fold_optional(session.cobrowse_role)
    if session.controlling is not None and len(session.controlling) <= CONTROLLED_MAX:
        details["controlling"] = sorted({controlled for controlled in session.controlling if controlled})
    if session.viewer_url:
        details["viewable"] = True


def _add_wrapup(details: dict[str, Any], wrapup: Wrapup) -> None:
    details["wrapup_code"] = wrapup.code or None
    details["wrapup_duration_seconds"] = _to_exact(wrapup.duration_seconds)


def _read_routing(routing: RoutingData) -> dict[str, Any]:
    """What was asked of an agent, by field."""
    return {
        "routing_language_id": _get_id(routing.language),
        "routing_priority": _to_exact(routing.priority),
        "routing_skill_ids": None if routing.skills is None else _list_ids(routing.skills),
    }


def _list_reasons(reasons: list[DisconnectReason | None] | None) -> list[str] | None:
    """The codes of disconnect reasons, each with its protocol, sorted."""
    if reasons is None:
        return None
    whole = [(reason.type, _to_exact(reason.code)) for reason in reasons if reason is not None and reason.type]
    return sorted({f"{fold_case(kind)}:{code}" for kind, code in whole if kind and code is not None})


def _list_division_ids(memberships: list[DivisionMembership | None]) -> list[str]:
    return _list_ids([membership.division for membership in memberships if membership is not None])


def _list_ids(references: list[Reference | None]) -> list[str]:
    return sorted({reference.id for reference in references if reference is not None and reference.id})


def _list_transfers(transfers: list[Transfer | None], times: TimeReader) -> list[KnownTransfer]:
    """The transfers that have an id, in the order of their published bytes."""
    known = [_read_transfer(transfer, times) for transfer in transfers if transfer is not None and transfer.id]
    by_bytes = {msgspec.json.encode(transfer): transfer for transfer in known}
    return [by_bytes[encoded] for encoded in sorted(by_bytes)]


def _read_transfer(transfer: Transfer, times: TimeReader) -> KnownTransfer:
    return KnownTransfer(
        transfer_id=transfer.id or "",
        state=_fold_optional(transfer.state),
        kind=_fold_optional(transfer.transfer_type),
        time=times.read(transfer.date_issued) or None,
        initiator_user_id=_get_user_id(transfer.initiator),
        destination_user_id=_get_user_id(transfer.destination),
    )


def _digest(secret: str | None, key: bytes) -> str | None:
    """What is kept of an id that grants access to what it names."""
    return hashlib.blake2b(secret.encode(), digest_size=16, key=key).hexdigest() if secret else None


def _digest_endpoint(endpoint: Address | None, key: bytes) -> str | None:
    """A digest of an address. None without a key: numbers are few enough to try them all."""
    return None if endpoint is None or not key else _digest(endpoint.address_normalized or endpoint.address_raw, key)


def _to_exact(number: float | None) -> int | None:
    """A number that every reader of JSON has exactly."""
    return int(number) if number is not None and -_NUMBER_MAX <= number <= _NUMBER_MAX else None


def _get_id(reference: Reference | None) -> str | None:
    return None if reference is None else reference.id or None


def _get_user_id(user: TransferUser | None) -> str | None:
    return None if user is None else user.user_id or None


def _fold_optional(value: str | None) -> str | None:
    return fold_case(value) if value else None
