"""JSON documents to look into and to write in other ways: objects are lists of pairs, so a member can occur twice."""

import json
import random
from collections.abc import Iterator
from typing import Any, Final


class Pairs(list[tuple[str, Any]]):
    """An object with its members in order."""


def parse(value: bytes) -> Any:
    """The document of a value; raises ValueError for what is no JSON."""
    return json.loads(value, object_pairs_hook=Pairs)


def write(document: Any, chance: random.Random | None = None) -> bytes:
    """The value of a document; with `chance` some texts are escaped, and some space is added."""
    return _write(document, chance).encode("utf-8", "surrogatepass")


def _write(document: Any, chance: random.Random | None) -> str:
    space = "" if chance is None or chance.random() < 0.98 else chance.choice((" ", "\n\t ", "\r\n"))
    match document:
        case Pairs():
            members = (f"{_write(name, chance)}:{space}{_write(value, chance)}" for name, value in document)
            return "{" + space + ",".join(members) + "}"
        case list():
            return f"[{space}{','.join(_write(element, chance) for element in document)}]"
        case str() if chance is not None and chance.random() < 0.05:
            return _escape(document, chance)
        case _:
            return json.dumps(document, ensure_ascii=False)


def _escape(text: str, chance: random.Random) -> str:
    """A text with some of its characters as escapes."""
    plain = json.dumps(text)[1:-1]
    if "\\" in plain:
        return f'"{plain}"'
    form = chance.choice(("\\u%04x", "\\u%04X"))
    return '"' + "".join(form % ord(mark) if chance.random() < 0.3 else mark for mark in plain) + '"'


_OF_STRUCTS: Final = frozenset(("conversationId", "participantId", "media", "rank", "offset"))
"""Members that tell an object with fixed members from a mapping, to which no version adds a member of its own."""


def rewrite(chance: random.Random, state: bytes) -> bytes:
    """A published state with the same meaning in other bytes, and perhaps with members of a later version."""
    document = parse(state)
    objects = list(_objects(document))
    for _ in range(chance.choice((1, 1, 3))):
        changed = chance.choice(objects)
        is_struct = not _OF_STRUCTS.isdisjoint(name for name, _ in changed)
        if is_struct and chance.random() < 0.5:
            added: Any = chance.choice((None, 1, "x", [], Pairs([("y", 1.5)])))
            changed.insert(chance.randrange(len(changed) + 1), ("addedLater", added))
        else:
            chance.shuffle(changed)
    return write(document, chance)


def _objects(document: Any) -> Iterator[Pairs]:
    """Every object of a document, itself included."""
    if isinstance(document, Pairs):
        yield document
        for _, value in document:
            yield from _objects(value)
    elif isinstance(document, list):
        for element in document:
            yield from _objects(element)
