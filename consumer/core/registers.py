"""Last-writer-wins registers: each detail of a communication or a participant keeps its newest value.

A detail that is absent says nothing and erases nothing, so every detail has a version of its own. They are stored
compactly: `version` is the newest at which the owner was shown, and only details that this showing left out have
their own, older version listed. Where versions are equal the greater value wins, compared as published JSON bytes.
"""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import msgspec
from msgspec.structs import astuple, replace

from schemas.state import CommunicationDetails, ParticipantDetails


class Ordered(Protocol):
    """A version: anything with an order."""

    def __lt__(self, other: Self, /) -> bool: ...
    def __gt__(self, other: Self, /) -> bool: ...


D = TypeVar("D", CommunicationDetails, ParticipantDetails)
V = TypeVar("V", bound=Ordered)


def merged(kept: D, kept_version: V, older: dict[str, V], shown: D, version: V) -> tuple[D, V, dict[str, V]] | None:
    """The details, their version and the older ones after a showing at `version`; None if it says nothing new.

    What is handed in is never changed. `older` holds the versions that differ from `kept_version`, by published name.
    """
    if shown == kept:
        if version > kept_version:
            return kept, version, {}
        if not older:
            return None
    elif version > kept_version and _says_as_much(shown, kept):
        return shown, version, {}
    return _merged_one_by_one(kept, kept_version, older, shown, version)


def combined(registers: Sequence[tuple[D, V, dict[str, V]]]) -> D:
    """The newest value of each detail, of several owners that are one: details, version and older versions of each.

    It is what `merged` would give had all that they were shown with been shown of one.
    """
    first, *others = registers
    news: dict[str, object] = {}
    for field, name in zip(first[0].__struct_fields__, first[0].__struct_encode_fields__, strict=True):
        newest = getattr(first[0], field)
        newest_version = first[2].get(name, first[1])
        for details, version, older in others:
            value, value_version = getattr(details, field), older.get(name, version)
            if value is not None and (newest is None or _wins(value, value_version, newest, newest_version)):
                newest, newest_version = value, value_version
                news[field] = value
    return replace(first[0], **news)


def _says_as_much(shown: D, kept: D) -> bool:
    """Whether every detail that is kept is shown as well."""
    kept_without = [
        1 for said, known in zip(astuple(shown), astuple(kept), strict=True) if said is None and known is not None
    ]
    return not kept_without


def _merged_one_by_one(
    kept: D, kept_version: V, older: dict[str, V], shown: D, version: V
) -> tuple[D, V, dict[str, V]] | None:
    newest = max(version, kept_version)
    news: dict[str, object] = {}
    still_older: dict[str, V] = {}
    values = zip(kept.__struct_fields__, kept.__struct_encode_fields__, astuple(kept), astuple(shown), strict=True)
    for field, name, kept_value, shown_value in values:
        if shown_value is None and kept_value is None:
            continue
        value_version = older.get(name, kept_version)
        if shown_value is not None and (kept_value is None or _wins(shown_value, version, kept_value, value_version)):
            if shown_value != kept_value:
                news[field] = shown_value
            value_version = version
        if value_version != newest:
            still_older[name] = value_version
    if not news and newest == kept_version and still_older == older:
        return None
    return replace(kept, **news), newest, still_older


def _wins(shown: object, version: V, kept: object, kept_version: V) -> bool:
    if version != kept_version:
        return version > kept_version
    return shown != kept and msgspec.json.encode(shown) > msgspec.json.encode(kept)
