"""Headers of a record in the topic `conversation-dead-letters`: why it is there, and where it is from.

All are text. Key and value are the record's own bytes, or left out. A record with the header `cc-redriven` is no dead
letter: it says what `dead-letters redrive` has put back.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

HEADER_PREFIX = "cc-"

_Digits = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9]+$"})]
_SignedDigits = Annotated[str, Meta(extra_json_schema={"pattern": "^-?[0-9]+$"})]


def _header_name(field: str) -> str:
    return HEADER_PREFIX + field.replace("_", "-")


class DeadLetterHeaders(Struct, rename=_header_name, frozen=True, kw_only=True):
    """The headers of one dead letter. They never hold a value of the record."""

    reason: str
    """Why the record could not be used. More reasons may come."""
    detail: str
    """The rule and where it was broken."""
    source_topic: str
    """The input topic."""
    source_partition: _Digits
    """The partition that the record was in."""
    source_offset: _Digits
    """The offset that the record was at."""
    source_timestamp_ms: _SignedDigits
    """The record's timestamp, in epoch milliseconds."""
    service_version: str
    """The version of the service that could not use it."""
    payload: str | UnsetType = UNSET
    """Why key and value are left out; absent where they are not."""
    source_snapshot_time: _Digits | UnsetType = UNSET
    """The record's header `snapshot-time`, in epoch milliseconds."""
    redrives: _Digits | UnsetType = UNSET
    """How often the record had been put back into the input before."""
