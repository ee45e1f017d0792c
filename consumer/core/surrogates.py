"""Halves of characters: JSON writers that cut a text in the middle of a character leave a lone surrogate escape behind.

Most writers and readers of JSON let it pass, msgspec refuses the whole value. It stands in names and texts that are
not even read, so the value is mended and read again: half a character reads as U+FFFD, the replacement character.
"""

import re
from typing import Final

ESCAPES_MAX: Final = 65_536
"""Escapes of surrogates, whole pairs among them, that a value to be mended may have. With more it stays as it is."""

_HEX: Final = rb"[0-9a-fA-F]{2}"
_HIGH: Final = rb"\\u[dD][89abAB]" + _HEX
_LOW: Final = rb"\\u[dD][c-fC-F]" + _HEX
_LONE: Final = re.compile(
    rb"\\u[dD](?:[89abAB]" + _HEX + rb"(?!" + _LOW + rb")|[c-fC-F]" + _HEX + rb"(?<!" + _HIGH + _LOW + rb"))"
)
"""Both alternatives begin with the same letters, which the regular expressions find fast."""


def mended(value: bytes) -> bytes:
    """The same JSON with the escape of U+FFFD for each lone surrogate escape; the value itself if it has none.

    Meant for values that were refused: it goes over all of a value several times.
    """
    escapes = value.count(rb"\ud") + value.count(rb"\uD")
    if not 0 < escapes <= ESCAPES_MAX:
        return value
    if rb"\\u" in value:  # a backslash that is itself escaped begins no other escape: it is written in another way
        value = value.replace(rb"\\", rb"\u005c")
    return _LONE.sub(rb"\\ufffd", value)
