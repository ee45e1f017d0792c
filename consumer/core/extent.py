"""How much a JSON value holds, found without decoding it: that costs time for each element, and depth for each level.

1. Every step goes over the bytes once, at the speed of memory, or over no more than `ELEMENTS_MAX` elements.
2. Of a value that is no JSON it says something, but always the same.
"""

from itertools import accumulate
from typing import Final, Literal

NESTING_MAX: Final = 256
"""Nesting of brackets allowed in a value; below the depth at which any supported Python gives up."""
ELEMENTS_MAX: Final = 65_536
"""Elements of arrays and members of objects allowed in a value. A conversation whose state is as large as may be takes
half as many to show it."""

Excess = Literal["too_deep", "too_many"]

_QUOTES_MAX: Final = 4 * ELEMENTS_MAX + 2
"""A member has two strings at most, an element one, and a string two quotes."""
_LEVELS: Final = 4


def _all_but(kept: bytes) -> bytes:
    return bytes(set(range(256)) - set(kept))


_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
_NO_OPENINGS: Final = _all_but(b"[{")
_NO_BEGINNINGS: Final = _all_but(b"[{,")
_NO_BRACKETS: Final = _all_but(b'[]{}"')
_NO_MARKS: Final = _all_but(b'[]{}",')


def exceeded(value: bytes) -> Excess | None:
    """Which limit a JSON value is beyond, None if it is within both. What stands within strings does not count."""
    may_be_deep = len(value.translate(None, _NO_OPENINGS)) > NESTING_MAX
    may_be_many = len(value) > ELEMENTS_MAX and len(value.translate(None, _NO_BEGINNINGS)) > ELEMENTS_MAX
    if not may_be_deep and not may_be_many:
        return None
    marks = _outside_strings(value, _NO_MARKS if may_be_many else _NO_BRACKETS)
    if marks is None:
        return "too_many"
    if may_be_deep and _is_deep(marks.translate(None, b",")[: 2 * ELEMENTS_MAX]):
        return "too_deep"
    return "too_many" if len(marks.translate(None, b"]")) > ELEMENTS_MAX else None


def _outside_strings(value: bytes, left_out: bytes) -> bytes | None:
    """The marks of a value outside its strings, all brackets as square ones; None if it has too many strings."""
    if b"\\" in value:  # without what is escaped, each quote begins a string or ends one; of one length it is fast
        value = value.replace(rb"\\", b"  ").replace(rb"\"", b"  ")
    marks = value.translate(_ONE_BRACKET, left_out)
    if marks.count(b'"') > _QUOTES_MAX:
        return None
    marks = marks.replace(b'""', b"")  # wherever it stands, what follows is as much within a string as before
    return b"".join(marks.split(b'"')[::2])


def _is_deep(brackets: bytes) -> bool:
    """Whether brackets nest deeper than `NESTING_MAX`."""
    outer = brackets
    for _ in range(_LEVELS):  # mostly that leaves next to nothing
        outer = outer.replace(b"[]", b"")
    if outer.count(b"[") + _LEVELS <= NESTING_MAX:
        return False
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    return max(accumulate(steps)) > NESTING_MAX
