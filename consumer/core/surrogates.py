"""Halves of characters: JSON writers that cut a text in the middle of a character leave a lone surrogate escape behind.

Most writers and readers of JSON let it pass, msgspec refuses the whole value. It stands in names and texts that are
not even read, so it is replaced and the value read again: half a character reads as U+FFFD, the replacement character.
"""

import re
from typing import Final

ESCAPES_MAX: Final = 16_384
"""Escapes of surrogates, pairs included, up to which a value is looked into. With more it stays as it is."""

_ONE_D: Final = bytes.maketrans(b"D", b"d")
_HEX: Final = rb"[0-9a-fA-F]{2}"
_HIGH: Final = rb"\\ud[89abAB]" + _HEX
_LOW: Final = rb"\\ud[c-fC-F]" + _HEX
_LONE: Final = re.compile(
    rb"\\ud(?:[89abAB]" + _HEX + rb"(?!" + _LOW + rb")|[c-fC-F]" + _HEX + rb"(?<!" + _HIGH + _LOW + rb"))"
)
"""Both alternatives begin with the same letters, which the regular expressions find fast."""


def replace_lone(value: bytes) -> bytes:
    """The same JSON with the escape of U+FFFD for each lone surrogate escape; the value itself if it has none.

    Only for values that msgspec refused: it goes over the whole value several times.
    """
    # A backslash that is itself escaped begins no other escape.
    searched = value.replace(rb"\\", b"  ").translate(_ONE_D)
    if not 0 < searched.count(rb"\ud") <= ESCAPES_MAX:
        return value
    replaced = bytearray(value)
    for lone in _LONE.finditer(searched):
        replaced[lone.start() : lone.end()] = rb"\ufffd"
    return bytes(replaced)
