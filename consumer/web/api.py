"""The API of the query port: what each request takes and how it is answered.

`query.py` serves by these values, and `make schemas` writes `openapi.json` from them: their texts are for those who use
the API.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Generic, TypeVar

from msgspec import Meta, Struct

from schemas.query import ConversationFound, LiveCommunications, Overview, Timeline
from schemas.state import Media

API: Final = "/api/"
API_V1: Final = f"{API}v1"
PARTS_PATH: Final = f"{API}parts/v1/"
"""Where workers ask each other. It is no part of the API: only a worker of the same version has to understand it."""
LIMIT_MAX: Final = 500

_AGE_S_MAX: Final = 315_360_000  # ten years
_Word = Annotated[str, Meta(min_length=1, max_length=256)]
_Age = Annotated[int, Meta(ge=0, le=_AGE_S_MAX)]
_Parameters_co = TypeVar("_Parameters_co", bound=Struct, covariant=True)


class NoParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """There are none."""


class TimelineParameters(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The query parameters of a timeline."""

    as_of: _Word | None = None
    """The time as of which the states are wanted, with an offset or in UTC. Later transitions are left out."""


class LiveParameters(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The query parameters of live communications."""

    media: Media | None = None
    """Only of this medium."""
    state: _Word | None = None
    """Only in this state, such as `alerting`, `connected` or `parked`."""
    queue_id: _Word | None = None
    """Only where the participant's queue is this one."""
    user_id: _Word | None = None
    """Only where the participant's user is this one."""
    min_age_seconds: _Age | None = None
    """Only those that began at least so long ago."""
    max_age_seconds: _Age | None = None
    """Only those that began at most so long ago."""
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 100
    """How many a page has at most."""
    cursor: Annotated[str, Meta(max_length=2_048)] | None = None
    """The `next` of the page before, asked for by the same filters."""


class Endpoint(Struct, Generic[_Parameters_co], frozen=True, kw_only=True):
    """A path and its GET request."""

    path: str
    """Below `API_V1`; a variable stands in braces and is one of `VARIABLES`."""
    operation_id: str
    """The name of the request in the code that others generate."""
    tag: str
    summary: str
    description: str = ""
    parameters: type[_Parameters_co]
    """The query parameters: none but these, and each at most once."""
    answer: type[Struct] | None
    """None for a JSON object that is described elsewhere."""
    answer_description: str
    problems: tuple[int, ...] = (400, 401, 405, 421, 429)
    """The other statuses, each one of `PROBLEMS`."""


class Header(Struct, frozen=True, kw_only=True):
    """A header of an answer."""

    name: str
    required: bool = False
    description: str = ""


class ProblemKind(Struct, frozen=True):
    """What a status other than 200 stands for."""

    description: str
    header: Header | None = None


VARIABLES: Final[Mapping[str, str]] = {
    "conversationId": "The conversation's id, as Genesys Cloud gives it.",
    "schema": (
        "`asyncapi.json`, `state.schema.json`, `transition.schema.json` or `dead-letter-headers.schema.json`, as the "
        "package ships it."
    ),
}

PROBLEMS: Final[Mapping[int, ProblemKind]] = {
    400: ProblemKind("A parameter is unknown, given twice, or has no good value."),
    401: ProblemKind("The token is missing or wrong.", Header(name="WWW-Authenticate", required=True)),
    404: ProblemKind("There is no such conversation, schema or path."),
    405: ProblemKind("The method is not allowed.", Header(name="Allow", required=True)),
    421: ProblemKind("No token is set (CC_QUERY_TOKEN), and the request names a host that is not loopback."),
    429: ProblemKind(
        "The address has sent too many wrong tokens. Until it gets another attempt, no token of it is looked at.",
        Header(name="Retry-After", required=True, description="Seconds after which it gets another attempt."),
    ),
    503: ProblemKind(
        "There is no answer at the moment: the partition is being restored, or Kafka does not respond.",
        Header(name="Retry-After", description="Seconds after which to ask again, where that is known."),
    ),
    504: ProblemKind(
        "The answer was not found in time, for example in a long partition of the state topic that another worker owns."
    ),
}

CONVERSATION: Final = Endpoint(
    path="/conversations/{conversationId}",
    operation_id="getConversation",
    tag="conversations",
    summary="The newest committed state of a conversation",
    parameters=NoParameters,
    answer=ConversationFound,
    answer_description="The state.",
    problems=(400, 401, 404, 405, 421, 429, 503, 504),
)
TIMELINE: Final = Endpoint(
    path="/conversations/{conversationId}/timeline",
    operation_id="getTimeline",
    tag="conversations",
    summary="What happened in a conversation, and the state of each of its communications, now or at a past time",
    description=(
        "A past time is one of events, not of knowledge: the answer is what is known now of that moment, late news "
        "included."
    ),
    parameters=TimelineParameters,
    answer=Timeline,
    answer_description="The standing transitions.",
    problems=(400, 401, 404, 405, 421, 429, 503, 504),
)
LIVE: Final = Endpoint(
    path="/communications",
    operation_id="listLiveCommunications",
    tag="communications",
    summary="Live communications of all partitions, the oldest first",
    description=(
        "A page ends early when it has cost enough: go on with `next`, at any worker, until it is null. Where "
        "`complete` is false the page leaves out what `missing` names."
    ),
    parameters=LiveParameters,
    answer=LiveCommunications,
    answer_description="A page.",
    problems=(400, 401, 405, 421, 429, 504),
)
OVERVIEW: Final = Endpoint(
    path="/overview",
    operation_id="getOverview",
    tag="communications",
    summary="What is live by medium and state, all lanes, and the latest transitions",
    description=(
        "Some tenths of a second old, older where counting costs much. Where `complete` is false it leaves out what "
        "`missing` names."
    ),
    parameters=NoParameters,
    answer=Overview,
    answer_description="The overview.",
    problems=(400, 401, 405, 421, 429, 504),
)
DOCUMENTATION: Final = Endpoint(
    path="/openapi.json",
    operation_id="getDocumentation",
    tag="documentation",
    summary="This document",
    parameters=NoParameters,
    answer=None,
    answer_description="This document.",
)
SCHEMA: Final = Endpoint(
    path="/schemas/{schema}",
    operation_id="getSchema",
    tag="documentation",
    summary="The contract of the topics: an AsyncAPI document, or the JSON Schema of what is published",
    parameters=NoParameters,
    answer=None,
    answer_description="The document.",
    problems=(400, 401, 404, 405, 421, 429),
)
ENDPOINTS: Final = (CONVERSATION, TIMELINE, LIVE, OVERVIEW, DOCUMENTATION, SCHEMA)
