"""Find where two JSON documents differ, by path. A list member is identified by its ids, not by its index."""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct


class Difference(Struct, frozen=True):
    """One path at which two documents differ. None if a document has no value there."""

    path: str
    published: Any
    recomputed: Any


_IDS = ("participantId", "media", "communicationId", "sessionDigest")
_IDS_OF_OBSERVATION = ("state", "cycle")


def compare(published: Any, recomputed: Any, path: str = "") -> Iterator[Difference]:
    """Every difference, as deep as both documents have a value."""
    if published == recomputed:
        return
    if isinstance(published, list) and isinstance(recomputed, list) and _all_have_ids((*published, *recomputed)):
        published, recomputed = _by_id(published), _by_id(recomputed)
        pattern = "{}[{}]"
    elif isinstance(published, dict) and isinstance(recomputed, dict):
        pattern = "{}.{}" if path else "{}{}"
    else:
        yield Difference(path, published, recomputed)
        return
    for name in dict.fromkeys((*published, *recomputed)):
        yield from compare(published.get(name), recomputed.get(name), pattern.format(path, name))


def _all_have_ids(members: tuple[Any, ...]) -> bool:
    return all(isinstance(member, dict) and _id_names(member) for member in members)


def _by_id(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Members by their joined ids; a number distinguishes those that have the same."""
    by_id: dict[str, Any] = {}
    for member in members:
        joined = "/".join(str(member[name]) for name in _id_names(member))
        key, number = joined, 2
        while key in by_id:
            key, number = f"{joined}#{number}", number + 1
        by_id[key] = member
    return by_id


def _id_names(member: dict[str, Any]) -> list[str]:
    names = [name for name in _IDS if name in member]
    return names or [name for name in _IDS_OF_OBSERVATION if name in member]
