"""The state of a conversation: the value of the compacted topic `conversation-state`, keyed by conversation id.

Times are ISO-8601 UTC text with exactly milliseconds (`2026-01-01T10:05:01.123Z`): of fixed width, so they sort as
text. Lists are sorted by the ids of their members, and a field that says nothing is omitted, so equal states are
equal bytes. Everything but `source` is a pure function of the set of the conversation's records.

States are values: whoever changes one makes a new one, which shares what stayed the same. The lists and dicts in
them are never changed either.
"""

from typing import Literal

from msgspec import Struct

STATE_SCHEMA = 1
"""The `schema` number of the state: it rises when a reader of the older form would go wrong."""

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
TimeClass = Literal["provider", "state", "snapshot"]
"""Where a time is from, best first: the provider's event, the state's own time, the snapshot's (an upper bound)."""

Standing = Literal["alone", "joined", "ambiguous"]


class Source(Struct, frozen=True, gc=False):
    """The input record that an output stems from. It tells of arrival, so a replay may give another."""

    topic: str
    partition: int
    offset: int


class Observation(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """A communication entered `state` at `time`; at most one is kept per (rank, state, cycle).

    `rank`: 0 before, 1 live, 2 disconnected, 3 terminated. `cycle`: the park time that a live communication shows,
    empty where it shows none. One of a cycle without a `parked` is no transition: the park was dropped, and it tells
    when the state before the next park was entered last.
    """

    state: str
    rank: int
    time: str
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
    """What else is known of a communication. Enumerations are folded to lower case with dots."""

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
    after_call_work_start_time: str | None = None
    after_call_work_end_time: str | None = None
    cobrowse_session_digest: str | None = None
    room_digest: str | None = None
    cobrowse_role: str | None = None
    controlling: list[str] | None = None
    viewable: bool | None = None
    """True once a viewer URL was shown; the URL itself is a secret and kept nowhere."""


class CommunicationState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """One leg of a participant in one medium.

    The flat shape shows no communication id: such an entry has a `standing` instead. `joined` to the nested
    communication `joined_to` it counts there; `alone` it counts under `session_digest` (or no id at all);
    `ambiguous` it counts nowhere until it is clear where it belongs.

    `state`, `state_time` and `time_class` are the last entry of the folded timeline and `began` is the time of its
    first; a joined or ambiguous communication has none. They and `details` follow from what the communication showed
    itself and what those showed that joined it; `version`, `detail_versions` and `timeline` are its own.
    """

    media: Media
    details: CommunicationDetails
    """What counts."""
    version: Version
    """The newest version at which the communication was shown: that of each detail not in `detail_versions`."""
    timeline: list[Observation]
    communication_id: str | None = None
    session_digest: str | None = None
    standing: Standing | None = None
    joined_to: str | None = None
    state: str | None = None
    state_time: str | None = None
    time_class: TimeClass | None = None
    began: str | None = None
    live: bool = False
    """Whether it has not ended: the last observation that counts is before or live."""
    detail_versions: dict[str, Version] = {}
    """Versions of the details, by published name, that the newest showing left out."""
    own_details: CommunicationDetails | None = None
    """What the communication showed itself, None where that is `details`."""
    other_session_digests: list[str] = []
    """Digests of the co-browse sessions that it has shown besides the one in `details`, sorted."""


class ParticipantDetails(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """What is known of a participant. Ids only: names and addresses are personal data."""

    purpose: str | None = None
    user_id: str | None = None
    queue_id: str | None = None
    team_id: str | None = None
    external_contact_id: str | None = None
    wrapup_required: bool | None = None


class ParticipantState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """One participant with its communications, sorted by (media, communication id, session digest)."""

    participant_id: str
    snapshot_time: str
    """The newest snapshot that showed the participant: the time of each detail not in `detail_times`."""
    details: ParticipantDetails
    communications: list[CommunicationState] = []
    detail_times: dict[str, str] = {}
    """Snapshot times of the details, by published name, that the newest showing left out."""


class ConversationState(Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """The whole state of a conversation.

    What sums it up comes first, up to the conversation id: a reader that wants no more can stop there.
    """

    schema: int
    snapshot_time: str
    """The newest snapshot of the conversation."""
    live: int
    """How many communications are live."""
    communications: dict[str, dict[str, int]]
    """How many communications there are by media and state, both sorted; those without a state are not counted."""
    live_since: dict[str, list[str]]
    """By media: when live communications began, each time once; all sorted. Media without one are left out."""
    conversation_id: str
    source: Source
    """The last record that changed this state."""
    participants: list[ParticipantState] = []


SUMMARY_END = b',"conversationId":'
"""What follows the summary in the bytes of a state. It cannot occur earlier: a quote within a JSON text is escaped."""


class Summary(Struct, rename="camel", frozen=True, gc=False):
    """What the first bytes of a state, up to `SUMMARY_END`, say of it once they are closed with a brace."""

    schema: Literal[1]
    """Any other is written by a version that this one does not understand."""
    snapshot_time: str
    live: int
    communications: dict[str, dict[str, int]]
    live_since: dict[str, list[str]]
