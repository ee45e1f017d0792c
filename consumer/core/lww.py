"""Last-writer-wins registers: each detail of a communication, a participant or a conversation keeps its newest value.

An absent detail erases nothing, so every detail has a version of its own. They are stored compactly: `version` is the
newest at which the owner was shown, and `older` lists only the versions of details that the newest update left out.
Of two values with equal versions the greater is kept, compared as published JSON bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

import msgspec
from msgspec.structs import astuple, replace

from schemas.state import CommunicationDetails, ConversationDetails, ParticipantDetails


class Ordered(Protocol):
    """A version: any value with an order."""

    def __lt__(self, other: Self, /) -> bool: ...
    def __gt__(self, other: Self, /) -> bool: ...


D = TypeVar("D", CommunicationDetails, ConversationDetails, ParticipantDetails)
V = TypeVar("V", bound=Ordered)


def merge(known: D, known_version: V, older: dict[str, V], update: D, version: V) -> tuple[D, V, dict[str, V]] | None:
    """Merge an update at `version`: details, version and older versions afterwards; None if nothing changed.

    `older` holds, by published name, the versions that differ from `known_version`. No argument is changed.
    """
    if update == known:
        if version > known_version:
            return known, version, {}
        if not older:
            return None
    elif version > known_version and _covers(update, known):
        return update, version, {}
    return _merge_fields(known, known_version, older, update, version)


def combine(registers: Sequence[tuple[D, V, dict[str, V]]]) -> D:
    """The newest value of each detail over several owners, given as (details, version, older versions).

    It equals what `merge` would give if one owner had been shown with all their updates.
    """
    (first, first_version, first_older), *others = registers
    names = first.__struct_encode_fields__
    newest = list(astuple(first))
    versions: dict[str, V] = {}
    """Of the details that another owner has shown last."""
    for details, version, older in others:
        for index, (name, value) in enumerate(zip(names, astuple(details), strict=True)):
            if value is None:
                continue
            value_version = older.get(name, version)
            newest_version = versions.get(name, first_older.get(name, first_version))
            if newest[index] is None or _wins(value, value_version, newest[index], newest_version):
                newest[index], versions[name] = value, value_version
    return type(first)(*newest)


def _covers(update: D, known: D) -> bool:
    """Whether an update has a value for every detail that is known."""
    left_out = [1 for new, old in zip(astuple(update), astuple(known), strict=True) if new is None and old is not None]
    return not left_out


def _merge_fields(
    known: D, known_version: V, older: Mapping[str, V], update: D, version: V
) -> tuple[D, V, dict[str, V]] | None:
    newest = max(version, known_version)
    news: dict[str, object] = {}
    still_older: dict[str, V] = {}
    values = zip(known.__struct_fields__, known.__struct_encode_fields__, astuple(known), astuple(update), strict=True)
    for field, name, old, new in values:
        if new is None and old is None:
            continue
        value_version = older.get(name, known_version)
        if new is not None and (old is None or _wins(new, version, old, value_version)):
            if new != old:
                news[field] = new
            value_version = version
        if value_version != newest:
            still_older[name] = value_version
    if not news and newest == known_version and still_older == older:
        return None
    return replace(known, **news), newest, still_older


def _wins(new: object, version: V, old: object, old_version: V) -> bool:
    if version != old_version:
        return version > old_version
    return new != old and msgspec.json.encode(new) > msgspec.json.encode(old)
