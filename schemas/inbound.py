"""The conversation updates of Genesys Cloud, limited to the properties that this service uses.

Property names and types are those of the public Genesys models `ConversationEventTopic*` (nested shape) and
`Conversation<Medium>EventTopic*` (flat shape). Every property is optional there, and null occurs everywhere, list
elements included; an empty string means no value, like null. Undeclared properties are skipped while decoding, so
declare only fields that are used.

A time is decoded as an ISO-8601 text or as epoch milliseconds, and the core parses it: a malformed one is an
implausible time, not a broken record.

Every text that is kept as it came is a `Text`, of bounded length. The others become digests, times or a fact.
"""

from typing import Annotated, Final

from msgspec import Meta, Raw, Struct, field

TEXT_LENGTH_MAX: Final = 256
"""Characters of a text that is kept. The models state no lengths; ids are UUIDs, of 36 characters, and enumerations are
shorter. A record with a longer one is a dead letter, so nothing of it is lost."""
Text = Annotated[str, Meta(max_length=TEXT_LENGTH_MAX)]
"""A text that is kept."""
LIST_LENGTH_MAX: Final = 100
"""Elements of a list that is kept whole. Genesys lists at most 20 transfers. A record with a longer one is a dead
letter."""

WireTime = str | int | float | None
"""A time as it stands on the wire: ISO-8601 text, epoch milliseconds, or absent."""
WireInteger = int | Annotated[float, Meta(multiple_of=1)] | None
"""An integer as it stands on the wire. JSON writers that know only one kind of number write it as `12.0`."""


class Wrapup(Struct, rename="camel", gc=False):
    """The wrap-up of one communication; `notes` and `tags` are personal data and left out."""

    code: Text | None = None
    duration_seconds: WireInteger = None


class AfterCallWork(Struct, rename="camel", gc=False):
    """After-call work of one communication; it changes after the communication has ended."""

    state: Text | None = None
    start_time: WireTime = None
    end_time: WireTime = None


class ErrorInfo(Struct, gc=False):
    """Why a communication failed; its texts and parameters carry names and addresses and are left out."""

    code: Text | None = None


class DisconnectReason(Struct, gc=False):
    """A code of the protocol with which a call was disconnected; its `phrase` says the same in words."""

    type: Text | None = None
    code: WireInteger = None


class Address(Struct, rename="camel", gc=False):
    """The address of an endpoint, of which a digest is kept; its names are left out."""

    address_normalized: str | None = None
    address_raw: str | None = None


class Reference(Struct, gc=False):
    """A reference to another entity. `{}` where it is unset; its `name` is left out."""

    id: Text | None = None


class RoutingData(Struct, gc=False):
    """What was asked of the agent. The queue is the participant's, and scores of agents are personal data."""

    language: Reference | None = None
    priority: WireInteger = None
    skills: Annotated[list[Reference | None], Meta(max_length=LIST_LENGTH_MAX)] | None = None


class Communication(Struct, rename="camel", gc=False):
    """What all eleven media have in common: one leg of one participant."""

    id: Text | None = None
    state: Text | None = None
    initial_state: Text | None = None
    provider: Text | None = None
    disconnect_type: Text | None = None
    connected_time: WireTime = None
    disconnected_time: WireTime = None


class RoutedCommunication(Communication, rename="camel", gc=False):
    """The nine media that can be routed to an agent: they have a peer, a wrap-up and after-call work.

    `start_alerting_time` is only in bodies of the REST API, which some relays write.
    """

    start_alerting_time: WireTime = None
    peer_id: Text | None = None
    wrapup: Wrapup | None = None
    after_call_work: AfterCallWork | None = None
    after_call_work_required: bool | None = None


class Call(RoutedCommunication, rename="camel", gc=False):
    """A voice call."""

    direction: Text | None = None
    held: bool | None = None
    start_hold_time: WireTime = None
    muted: bool | None = None
    error_info: ErrorInfo | None = None
    disconnect_reasons: Annotated[list[DisconnectReason | None], Meta(max_length=LIST_LENGTH_MAX)] | None = None


class Callback(RoutedCommunication, rename="camel", gc=False):
    """A callback; its numbers and names are personal data and left out."""

    direction: Text | None = None
    held: bool | None = None
    start_hold_time: WireTime = None
    callback_scheduled_time: WireTime = None


class Chat(RoutedCommunication, rename="camel", gc=False):
    """A web chat (the older medium, before messaging)."""

    held: bool | None = None
    start_hold_time: WireTime = None


class CobrowseSession(RoutedCommunication, rename="camel", gc=False):
    """One leg of a co-browse session: a sharer (usually the customer) or a viewer (usually the agent).

    `viewer_url` opens the live session and is a secret: only the fact that it was shown is kept. Of the address of the
    endpoint a digest is kept. `COBROWSE_LEFT_OUT` lists what is not declared.
    """

    endpoint: Address | None = field(name="self", default=None)
    room_id: str | None = None
    cobrowse_session_id: str | None = None
    cobrowse_role: Text | None = None
    controlling: list[Text | None] | None = None
    viewer_url: str | None = None
    provider_event_time: WireTime = None


COBROWSE_LEFT_OUT = {
    "scriptId": "the agent's script is no property of the session",
    "queueMediaSettings": "configuration of the queue, the same for all its sessions",
}
"""Properties of the co-browse event model that are not decoded, and why."""


class Email(RoutedCommunication, rename="camel", gc=False):
    """An e-mail; it can be parked. `resumeTime` is a plan and left out."""

    direction: Text | None = None
    held: bool | None = None
    start_hold_time: WireTime = None
    error_info: ErrorInfo | None = None
    park_time: WireTime = None


class Message(RoutedCommunication, rename="camel", gc=False):
    """A message thread (SMS, web messaging, ...); it can be parked. `resumeTime` is a plan and left out."""

    direction: Text | None = None
    held: bool | None = None
    start_hold_time: WireTime = None
    error_info: ErrorInfo | None = None
    type: Text | None = None
    park_time: WireTime = None


class Screenshare(RoutedCommunication, rename="camel", gc=False):
    """A screen share."""


class SocialExpression(RoutedCommunication, rename="camel", gc=False):
    """A post in a social network."""

    held: bool | None = None
    start_hold_time: WireTime = None


class Video(RoutedCommunication, rename="camel", gc=False):
    """A video call."""


class InternalMessage(Communication, rename="camel", gc=False):
    """A message between two users of the organization."""

    start_alerting_time: WireTime = None


class ScreenMonitoring(Communication, rename="camel", gc=False):
    """A supervisor watching an agent's screen."""


class Participant(Struct, rename="camel", gc=False):
    """A participant in the nested shape: its communications are in one array per medium."""

    id: Text | None = None
    purpose: Text | None = None
    user_id: Text | None = None
    queue_id: Text | None = None
    team_id: Text | None = None
    external_contact_id: Text | None = None
    group_id: Text | None = None
    consult_participant_id: Text | None = None
    monitored_participant_id: Text | None = None
    coached_participant_id: Text | None = None
    barged_participant_id: Text | None = None
    conversation_routing_data: RoutingData | None = None
    wrapup_required: bool | None = None
    wrapup: Wrapup | None = None
    start_acw_time: WireTime = None
    end_acw_time: WireTime = None
    calls: list[Call | None] | None = None
    callbacks: list[Callback | None] | None = None
    chats: list[Chat | None] | None = None
    cobrowsesessions: list[CobrowseSession | None] | None = None
    emails: list[Email | None] | None = None
    messages: list[Message | None] | None = None
    internal_messages: list[InternalMessage | None] | None = None
    screen_monitorings: list[ScreenMonitoring | None] | None = None
    screenshares: list[Screenshare | None] | None = None
    social_expressions: list[SocialExpression | None] | None = None
    videos: list[Video | None] | None = None


class FlatParticipant(Struct, rename="camel", gc=False):
    """A participant in the flat shape: its one communication has no id, and its fields are the participant's own."""

    id: Text | None = None
    purpose: Text | None = None
    user: Reference | None = None
    queue: Reference | None = None
    team: Reference | None = None
    external_contact: Reference | None = None
    group: Reference | None = None
    consult_participant_id: Text | None = None
    monitored_participant_id: Text | None = None
    coached_participant_id: Text | None = None
    barged_participant_id: Text | None = None
    conversation_routing_data: RoutingData | None = None
    wrapup_required: bool | None = None
    state: Text | None = None
    initial_state: Text | None = None
    provider: Text | None = None
    disconnect_type: Text | None = None
    direction: Text | None = None
    held: bool | None = None
    start_hold_time: WireTime = None
    muted: bool | None = None
    error_info: ErrorInfo | None = None
    callback_scheduled_time: WireTime = None
    peer: Text | None = None
    type: Text | None = None
    wrapup: Wrapup | None = None
    connected_time: WireTime = None
    end_time: WireTime = None
    park_time: WireTime = None
    start_acw_time: WireTime = None
    end_acw_time: WireTime = None
    cobrowse_session_id: str | None = None
    cobrowse_role: Text | None = None
    controlling: list[Text | None] | None = None
    viewer_url: str | None = None
    provider_event_time: WireTime = None


FLAT_COBROWSE_LEFT_OUT = {
    "name": "names a person",
    "address": "addresses a person",
    "attributes": "free map: names, account numbers, card data",
    "startTime": "when the participant joined; the session's own times are connectedTime and providerEventTime",
    "resumeTime": "a plan, not a fact",
    "script": "the agent's script is no property of the session",
    "externalOrganization": "the external contact identifies it well enough",
    "externalContactInitialDivisionId": "administration of the contact, not of the session",
    "queueMediaSettings": "configuration of the queue, the same for all its sessions",
    "alertingTimeoutMs": "configuration of the queue",
    "wrapupPrompt": "configuration of the queue",
    "wrapupTimeoutMs": "configuration of the queue",
    "wrapupSkipped": "the wrap-up itself holds what was entered",
    "screenRecordingState": "of the participant's screen, not of the session",
    "flaggedReason": "a mark for supervisors",
    "journeyContext": "identifies the customer in another system",
    "mediaRoles": "roles in conferences of other media",
}
"""Properties of the flat co-browse participant that are not decoded, and why."""


class TransferUser(Struct, rename="camel", gc=False):
    """Who transferred, or who was transferred to; where that is an endpoint, its address is left out."""

    user_id: Text | None = None


class Transfer(Struct, rename="camel", gc=False):
    """A transfer of the conversation."""

    id: Text | None = None
    state: Text | None = None
    transfer_type: Text | None = None
    date_issued: WireTime = None
    initiator: TransferUser | None = None
    destination: TransferUser | None = None


class DivisionMembership(Struct, gc=False):
    """A division that the conversation belongs to; `entities` lists what brought it there."""

    division: Reference | None = None


class Conversation(Struct, rename="camel", gc=False):
    """The body of a conversation update.

    Its participants are left as JSON, because the topic decides their shape: `Participant` on topics like
    `v2.users.{id}.conversations`, `FlatParticipant` on the topics of one medium.
    """

    id: Text | None = None
    participants: list[Raw] | None = None
    external_tag: Text | None = None
    divisions: Annotated[list[DivisionMembership | None], Meta(max_length=LIST_LENGTH_MAX)] | None = None
    recent_transfers: Annotated[list[Transfer | None], Meta(max_length=LIST_LENGTH_MAX)] | None = None


class Detail(Struct, rename="camel", gc=False):
    """What an EventBridge event carries in `detail`: the WebSocket envelope and a timestamp in milliseconds."""

    topic_name: str | None = None
    event_body: Conversation | None = None
    timestamp: WireTime = None


class Payload(Conversation, rename="camel", gc=False):
    """The value of a record: one Struct reads the three envelopes in one pass.

    | envelope    | filled                                                                      |
    | ----------- | --------------------------------------------------------------------------- |
    | WebSocket   | `topic_name`, `event_body`                                                  |
    | EventBridge | `detail_type` (the topic's template), `detail`; `id` is the event's own     |
    | bare        | `id` and `participants` of the conversation itself                          |
    """

    topic_name: str | None = None
    event_body: Conversation | None = None
    detail_type: str | None = field(name="detail-type", default=None)
    detail: Detail | None = None
