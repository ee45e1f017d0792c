"""The escapes of a JSON value, found at the speed of memory: one of Python's own decoders goes over them.

That decoder knows other escapes than JSON. So bytes are first translated into a few letters, all of which are escapes
for it: a letter that is escaped becomes its control character, and nothing else does.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

OTHER: Final = b"t"
LETTERS: Final = {b'"': b"n", b"[{": b"b", b"]}": b"f", b",": b"v", b"u": b"r", b"dD": b"a", b"\\": b"\\"}
"""Which letter stands for which bytes; `OTHER` stands for the rest. A backslash stays one, escaped or not."""

_TABLE: Final = b"".join(
    next((letter for kind, letter in LETTERS.items() if byte in kind), OTHER) for byte in range(256)
)
PIECE_BYTES: Final = 65_536
"""Size of the pieces of a long value, about: so small that one hardly ever has all of what makes others costly."""
_CUT: Final = re.compile(rb"[\\u]*.?", re.DOTALL)
"""From anywhere to where no escape is begun. It always matches."""
_ESCAPED: Final = b"\a\b\f\n\r\t\v\\"


class Piece(Struct, gc=False):
    """A part of a JSON value. Its letters are made when they are needed, and once."""

    value: bytes
    _letters: bytes | None = None

    @property
    def letters(self) -> bytes:
        """The letters of its bytes; each escape, of two bytes, is one control character or one backslash."""
        if self._letters is None:
            letters = self.value.translate(_TABLE)
            if letters.endswith(b"\\"):  # the decoder refuses a backslash that escapes nothing
                letters += OTHER
            self._letters = codecs.escape_decode(letters)[0]
        return self._letters


class JsonText(Struct, gc=False):
    """A JSON value. What is to be found in it is searched piece by piece: most pieces of a long text hold nothing."""

    value: bytes
    piece_bytes: int = PIECE_BYTES
    _pieces: list[Piece] | None = None

    @property
    def pieces(self) -> list[Piece]:
        """The value in parts, none of which ends within an escape or right behind the `u` of one."""
        if self._pieces is None:
            self._pieces = [Piece(part) for part in _cut(self.value, self.piece_bytes)]
        return self._pieces


def _cut(value: bytes, piece_bytes: int) -> Iterator[bytes]:
    start = 0
    while start < len(value):
        behind = _CUT.match(value, start + piece_bytes)
        assert behind is not None
        yield value[start : behind.end()]
        start = behind.end()


def measure(letters: bytes) -> int:
    """How many bytes these letters stand for."""
    return 2 * len(letters) - len(letters.translate(None, _ESCAPED))
