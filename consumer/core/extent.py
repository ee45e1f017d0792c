"""How much a JSON value holds, found without decoding it: that costs time for each element, and depth for each level.

1. Every step goes over the bytes once, at the speed of memory, or over no more than `ELEMENTS_MAX` elements.
2. Of a value that is no JSON it says something, but always the same.
"""

from itertools import accumulate
from typing import Final, Literal

from consumer.core.escapes import JsonText, Piece

NESTING_MAX: Final = 256
"""Nesting of brackets allowed in a value; below the depth at which any supported Python gives up."""
ELEMENTS_MAX: Final = 65_536
"""Elements of arrays and members of objects allowed in a value. A conversation whose state is as large as may be takes
half as many to show it."""

Excess = Literal["too_deep", "too_many"]

_QUOTES_MAX: Final = 4 * ELEMENTS_MAX + 2
"""A member has two strings at most, an element one, and a string two quotes."""
_QUOTES_FEW: Final = 4_096
"""So many are split faster than searched for pairs."""
_LEVELS: Final = 4


def _bytes_without(kept: bytes) -> bytes:
    return bytes(set(range(256)) - set(kept))


_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_OF_LETTERS: Final = bytes.maketrans(b"nbfv\b\f\v", b'"[],[],')
"""The marks that letters stand for. Only a quote is none where it is escaped."""
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
_NO_OPENINGS: Final = _bytes_without(b"[{")
_NO_BEGINNINGS: Final = _bytes_without(b"[{,")
_NO_MARKS: Final = _bytes_without(b'[]{}",')
_NO_LETTERS_OF_MARKS: Final = _bytes_without(b"nbfv\b\f\v")


def find_excess(text: JsonText) -> Excess | None:
    """Which limit a JSON value is beyond, None if it is within both. What stands within strings does not count."""
    if len(text.value) <= ELEMENTS_MAX and _is_small(text.value):
        return None
    marks = _outside_strings(text)
    if marks is None:
        return None if _is_small(text.value) else "too_many"
    if _is_deep(marks.translate(None, b",")[: 2 * ELEMENTS_MAX]):
        return "too_deep"
    return "too_many" if len(marks.translate(None, b"]")) > ELEMENTS_MAX else None


def _is_small(value: bytes) -> bool:
    """Whether a value is within both limits even if nothing of it stands within strings."""
    may_be_many = len(value) > ELEMENTS_MAX and len(value.translate(None, _NO_BEGINNINGS)) > ELEMENTS_MAX
    return not may_be_many and len(value.translate(None, _NO_OPENINGS)) <= NESTING_MAX


def _outside_strings(text: JsonText) -> bytes | None:
    """The marks of a value outside its strings, all brackets as square ones; None if it has too many strings."""
    outside: list[bytes] = []
    quotes = 0
    for piece in text.pieces:
        is_within = quotes % 2
        if is_within and b'"' not in piece.value:
            continue
        marks = _find_marks(piece)
        found = marks.count(b'"')
        quotes += found
        if quotes > _QUOTES_MAX:
            return None
        if found > _QUOTES_FEW:  # wherever two adjoin, what follows is as much within a string as before
            marks = marks.replace(b'""', b"")
        outside += marks.split(b'"')[is_within::2]
    return b"".join(outside)


def _find_marks(piece: Piece) -> bytes:
    if b"\\" in piece.value:
        return piece.letters.translate(_OF_LETTERS, _NO_LETTERS_OF_MARKS)
    return piece.value.translate(_ONE_BRACKET, _NO_MARKS)


def _is_deep(brackets: bytes) -> bool:
    """Whether brackets nest deeper than `NESTING_MAX`."""
    outer = brackets
    for _ in range(_LEVELS):  # mostly that leaves next to nothing
        outer = outer.replace(b"[]", b"")
    if outer.count(b"[") + _LEVELS <= NESTING_MAX:
        return False
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    return max(accumulate(steps)) > NESTING_MAX
