"""Last-writer-wins registers: each detail of a communication or a participant keeps its newest value.

A detail that is absent says nothing and erases nothing, so every detail has a version of its own. They are stored
compactly: `version` is the newest at which the owner was shown, and only details that this showing left out have
their own, older version listed. Where versions are equal the greater value wins, compared as published JSON bytes.
"""

from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from schemas.state import CommunicationDetails, ParticipantDetails


class Ordered(Protocol):
    """A version: anything with an order."""

    def __lt__(self, other: Self, /) -> bool: ...
    def __gt__(self, other: Self, /) -> bool: ...


D = TypeVar("D", CommunicationDetails, ParticipantDetails)
V = TypeVar("V", bound=Ordered)


class Registers(NamedTuple, Generic[D, V]):
    """Details with their versions; `older` holds those that differ from `version`, by published name."""

    details: D
    version: V
    older: dict[str, V]


def merged(kept: Registers[D, V], shown: D, version: V) -> Registers[D, V]:
    """The registers after a showing at `version`; the same object if it says nothing new."""
    if version > kept.version and shown == kept.details:
        return Registers(kept.details, version, {})
    newest = max(version, kept.version)
    details = msgspec.structs.replace(kept.details)
    older: dict[str, V] = {}
    values = zip(
        details.__struct_fields__,
        details.__struct_encode_fields__,
        msgspec.structs.astuple(kept.details),
        msgspec.structs.astuple(shown),
        strict=True,
    )
    for field, name, kept_value, shown_value in values:
        if shown_value is None and kept_value is None:
            continue
        value_version = kept.older.get(name, kept.version)
        if shown_value is not None and (kept_value is None or _wins(shown_value, version, kept_value, value_version)):
            setattr(details, field, shown_value)
            value_version = version
        if value_version != newest:
            older[name] = value_version
    result = Registers(details, newest, older)
    return kept if result == kept else result


def _wins(shown: object, version: V, kept: object, kept_version: V) -> bool:
    if version != kept_version:
        return version > kept_version
    return shown != kept and msgspec.json.encode(shown) > msgspec.json.encode(kept)
