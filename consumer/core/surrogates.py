"""Halves of characters: JSON writers that cut a text in the middle of a character leave a lone surrogate escape behind.

Most writers and readers of JSON let it pass, msgspec refuses the whole value. It stands in names and texts that are
not even read, so it is replaced and the value read again: half a character reads as U+FFFD, the replacement character.
"""

import re
from collections.abc import Iterable
from itertools import accumulate, product
from typing import Final

from consumer.core.escapes import JsonText, measure

ESCAPES_MAX: Final = 16_384
"""Escapes of surrogates, pairs included, up to which a value is looked into. With more it stays as it is."""

_ESCAPE_BYTES: Final = 6
_split: Final = re.compile(rb"\ra").split
"""Parts letters where `\\ud` stands, faster than their own `split` would."""
_HEX: Final = b"0123456789abcdefABCDEF"
_HIGH: Final = frozenset(map(bytes, product(b"89abAB", _HEX, _HEX)))
_LOW: Final = frozenset(map(bytes, product(b"cdefCDEF", _HEX, _HEX)))
"""The last three digits of either half of a character."""


def replace_lone(text: JsonText) -> bytes:
    """The same JSON with the escape of U+FFFD for each lone surrogate escape; the value itself if it has none."""
    if b"\\" not in text.value:
        return text.value
    starts = _find_escapes(text)
    lone = _find_lone(text.value, starts) if len(starts) <= ESCAPES_MAX else []
    if not lone:
        return text.value
    value = memoryview(text.value)
    ends = [0, *[start + _ESCAPE_BYTES for start in lone]]
    return rb"\ufffd".join([value[end:start] for end, start in zip(ends, [*lone, len(value)], strict=True)])


def _find_escapes(text: JsonText) -> list[int]:
    """Where an escape begins with the letter `d`, a surrogate's mostly; not all if they are too many."""
    starts: list[int] = []
    begin = 0
    for piece in text.pieces:
        if b"\\" in piece.value:
            first, *others = _split(piece.letters, ESCAPES_MAX + 1)
            if others:
                lengths = [len(rb"\ud") + measure(part) for part in others[:-1]]
                starts += accumulate(lengths, initial=begin + measure(first))
                if len(starts) > ESCAPES_MAX:
                    break
        begin += len(piece.value)
    return starts


def _find_lone(value: bytes, starts: Iterable[int]) -> list[int]:
    """Where lone surrogate escapes are, of all places where an escape begins with the letter `d`."""
    lone: list[int] = []
    high_end = -1
    for start in starts:
        digits = value[start + 3 : start + _ESCAPE_BYTES]
        if digits in _HIGH:
            high_end = start + _ESCAPE_BYTES
            lone.append(start)
        elif digits in _LOW:
            if start == high_end:
                lone.pop()
            else:
                lone.append(start)
    return lone
