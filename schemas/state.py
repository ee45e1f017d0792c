"""The state of a conversation: the value of the compacted topic `conversation-state`, keyed by conversation id.

Times are ISO-8601 UTC text with exactly milliseconds (`2026-01-01T10:05:01.123Z`): of fixed width, so they sort as
text. Lists are sorted by the ids of their members, and a field without a value is omitted, so equal states are
equal bytes. Everything but `source` is a pure function of the set of the conversation's records.
"""

# States are values: a change makes a new state, which shares what stayed the same. The lists and dicts in them never
# change either.

from typing import Annotated, Literal

from msgspec import Meta, Struct

STATE_SCHEMA = 1
"""The `schema` number of the state: it rises when readers of the older form would misread it."""

Media = Literal[
    "call",
    "callback",
    "chat",
    "cobrowse",
    "email",
    "internalmessage",
    "message",
    "screenmonitoring",
    "screenshare",
    "socialexpression",
    "video",
]
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""ISO-8601 in UTC with exactly milliseconds, such as `2026-01-01T10:05:01.123Z`."""
TimeClass = Literal["provider", "state", "snapshot"]
"""Source of a time, best first: the provider's event, the state's own time, the snapshot's time (an upper bound)."""

Standing = Literal["alone", "joined", "ambiguous"]


class Source(Struct, frozen=True, gc=False):
    """The input record that caused an output. It depends on arrival, so a replay may give another."""

    topic: str
    partition: int
    offset: int


class Observation(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """A communication entered `state` at `time`; at most one is kept per (rank, state, cycle).

    `rank`: 0 before, 1 live, 2 disconnected, 3 terminated. `cycle`: the park time that a live communication shows,
    empty where it shows none. An observation whose cycle has no `parked` is no transition: the park was dropped, and
    the observation dates when the state before the next park was entered last.
    """

    state: str
    rank: int
    time: Timestamp
    time_class: TimeClass
    cycle: str = ""


class Version(Struct, rename="camel", omit_defaults=True, order=True, frozen=True, gc=False):
    """How new a detail of a communication is; compared field by field in this order."""

    rank: int
    cycle: str = ""
    own_time: str = ""
    snapshot_time: str = ""
    """Omitted from the `version` of a communication where it is the `snapshot_time` of its participant."""


class CommunicationDetails(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """The details of a communication. Enumerations are folded to lower case with dots."""

    initial_state: str | None = None
    disconnect_type: str | None = None
    provider: str | None = None
    direction: str | None = None
    held: bool | None = None
    muted: bool | None = None
    peer_id: str | None = None
    message_type: str | None = None
    wrapup_code: str | None = None
    wrapup_duration_seconds: int | None = None
    after_call_work_required: bool | None = None
    after_call_work_state: str | None = None
    after_call_work_start_time: Timestamp | None = None
    after_call_work_end_time: Timestamp | None = None
    cobrowse_session_digest: str | None = None
    room_digest: str | None = None
    cobrowse_role: str | None = None
    controlling: list[str] | None = None
    viewable: bool | None = None
    """True once a viewer URL was shown; the URL itself is a secret and never kept."""
    hold_start_time: Timestamp | None = None
    """When the newest hold began: of the present one while `held`, else of the last one."""
    error_code: str | None = None
    disconnect_reasons: list[str] | None = None
    """Codes of the protocols with which a call was disconnected, such as `q850:16` and `sip:486`, sorted."""
    callback_scheduled_time: Timestamp | None = None
    """When a callback is planned for. It dates no transition."""
    endpoint_digest: str | None = None
    """Digest of the address of a co-browse endpoint; kept only with `CC_DIGEST_KEY`, for addresses can be guessed."""


class CommunicationState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """One leg of a participant in one medium.

    The flat shape has no communication ids; an entry from it has a `standing` instead:

    | standing    | counts                                                                  |
    | ----------- | ----------------------------------------------------------------------- |
    | `joined`    | as part of the nested communication `joined_to`                         |
    | `alone`     | under its `session_digest`, or under no id if it has none               |
    | `ambiguous` | not at all, until later records show which nested communication it is   |

    `state`, `state_time` and `time_class` are the last entry of the folded timeline and `began` is the time of the
    first; a joined or ambiguous communication has none. Those and `details` include what joined the communication;
    `version`, `detail_versions` and `timeline` are its own.
    """

    media: Media
    details: CommunicationDetails
    """The newest value of each detail, those of joined communications included."""
    version: Version
    """The newest version at which the communication was shown, and that of every detail not in `detail_versions`."""
    timeline: list[Observation]
    communication_id: str | None = None
    session_digest: str | None = None
    standing: Standing | None = None
    joined_to: str | None = None
    state: str | None = None
    state_time: Timestamp | None = None
    time_class: TimeClass | None = None
    began: Timestamp | None = None
    """When it entered its first state."""
    live: bool = False
    """Whether it has not ended: the last observation of the folded timeline has rank 0 or 1."""
    detail_versions: dict[str, Version] = {}
    """Versions of the details, by published name, that its newest update left out."""
    own_details: CommunicationDetails | None = None
    """The details that the communication showed itself, None if those are `details`."""
    other_session_digests: list[str] = []
    """Digests of the other co-browse sessions that it ever showed, sorted."""


class ParticipantDetails(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """The details of a participant. Ids only: names and addresses are personal data."""

    purpose: str | None = None
    user_id: str | None = None
    queue_id: str | None = None
    team_id: str | None = None
    external_contact_id: str | None = None
    wrapup_required: bool | None = None
    group_id: str | None = None
    consult_participant_id: str | None = None
    """Whom it consults; likewise whom it monitors, coaches, or barged in on."""
    monitored_participant_id: str | None = None
    coached_participant_id: str | None = None
    barged_participant_id: str | None = None
    routing_language_id: str | None = None
    routing_priority: int | None = None
    routing_skill_ids: list[str] | None = None
    """Skills that were asked of the agent, sorted."""
    wrapup_code: str | None = None
    """Wrap-up and after-call work of the participant as a whole, which only the nested shape shows; those of one
    communication are among its details."""
    wrapup_duration_seconds: int | None = None
    after_call_work_start_time: Timestamp | None = None
    after_call_work_end_time: Timestamp | None = None


class ParticipantState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """One participant with its communications, sorted by (media, communication id, session digest)."""

    participant_id: str
    snapshot_time: Timestamp
    """The newest snapshot that showed the participant, and the time of every detail not in `detail_times`."""
    details: ParticipantDetails
    communications: list[CommunicationState] = []
    detail_times: dict[str, Timestamp] = {}
    """Snapshot times of the details, by published name, that its newest update left out."""


class Transfer(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """A transfer of the conversation. Users by their ids; an address that it went to is personal data."""

    transfer_id: str
    state: str | None = None
    kind: str | None = None
    time: Timestamp | None = None
    """When it was ordered."""
    initiator_user_id: str | None = None
    destination_user_id: str | None = None


class ConversationDetails(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """The details of a conversation as a whole."""

    external_tag: str | None = None
    division_ids: list[str] | None = None
    """Sorted."""
    recent_transfers: list[Transfer] | None = None
    """The transfers that the newest snapshot listed, of which Genesys keeps 20, sorted."""


class ConversationState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """The whole state of a conversation.

    Its summary comes first, up to the conversation id: a reader that needs only the summary can stop there.
    """

    schema: int
    snapshot_time: Timestamp
    """The newest snapshot of the conversation."""
    live: int
    """How many communications have not ended; ambiguous ones are not counted."""
    communications: dict[str, dict[str, int]]
    """The number of communications by media and state, both sorted; those without a state are not counted."""
    live_since: dict[str, list[Timestamp]]
    """By media, the times at which live communications began, sorted and without repetition; no media without one."""
    conversation_id: str
    source: Source
    """The last record that changed this state."""
    participants: list[ParticipantState] = []
    details: ConversationDetails | None = None
    """None if no snapshot had any."""
    detail_times: dict[str, Timestamp] = {}
    """Snapshot times of the details, by published name, that the newest snapshot left out."""


SUMMARY_END = b',"conversationId":'
"""What follows the summary in the bytes of a state. It cannot occur earlier: quotes within JSON texts are escaped."""


class Summary(Struct, rename="camel", frozen=True, gc=False):
    """What the first bytes of a state, up to `SUMMARY_END`, decode to once they are closed with a brace."""

    schema: Literal[1]
    """Any other number is from a version of the service that this one cannot read."""
    snapshot_time: Timestamp
    live: int
    communications: dict[str, dict[str, int]]
    live_since: dict[str, list[Timestamp]]
