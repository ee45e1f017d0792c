"""Where two JSON documents differ, by path. Members of lists are told by their ids, not by their places."""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct


class Differing(Struct, frozen=True):
    """One place in two documents; None where a document has nothing there."""

    path: str
    published: Any
    recomputed: Any


_IDS = ("participantId", "media", "communicationId", "sessionDigest")
_IDS_OF_OBSERVATION = ("state", "cycle")


def differing(published: Any, recomputed: Any, path: str = "") -> Iterator[Differing]:
    """Every place in which the documents differ, as deep down as there is something on both sides."""
    if published == recomputed:
        return
    if isinstance(published, list) and isinstance(recomputed, list) and _all_named((*published, *recomputed)):
        published, recomputed = _by_name(published), _by_name(recomputed)
        joined = "{}[{}]"
    elif isinstance(published, dict) and isinstance(recomputed, dict):
        joined = "{}.{}" if path else "{}{}"
    else:
        yield Differing(path, published, recomputed)
        return
    for name in dict.fromkeys((*published, *recomputed)):
        yield from differing(published.get(name), recomputed.get(name), joined.format(path, name))


def _all_named(members: tuple[Any, ...]) -> bool:
    return all(isinstance(each, dict) and _name_parts(each) for each in members)


def _by_name(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Members by their ids; those of the same name are told apart by their number."""
    named: dict[str, Any] = {}
    for each in members:
        base = "/".join(str(each[name]) for name in _name_parts(each))
        name, number = base, 2
        while name in named:
            name, number = f"{base}#{number}", number + 1
        named[name] = each
    return named


def _name_parts(member: dict[str, Any]) -> list[str]:
    parts = [name for name in _IDS if name in member]
    return parts or [name for name in _IDS_OF_OBSERVATION if name in member]
