"""The letters of a JSON value: what is escaped is no longer what it was, and everything keeps its place."""

import warnings

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.escapes import LETTERS, OTHER, PIECE_BYTES, JsonText, Piece, measure

PLAIN = {byte: letter for kind, letter in LETTERS.items() for byte in kind}
ESCAPED = dict(zip(b"abfnrtv\\", b"\a\b\f\n\r\t\v\\", strict=True))


def letters_of(value: bytes) -> bytes:
    """Byte by byte, the letters of a value."""
    found, escaping = bytearray(), False
    for byte in value:
        letter = PLAIN.get(byte, OTHER)[0]
        if escaping:
            found.append(ESCAPED[letter])
        elif byte != ord("\\"):
            found.append(letter)
        escaping = not escaping and byte == ord("\\")
    return bytes(found)


def end_escape(value: bytes) -> bytes:
    """The value without a backslash at its end, which might escape nothing."""
    return value + b"x" * value.endswith(b"\\")


values = st.one_of(st.binary(), st.text('\\"[]{},udDnx7\n').map(str.encode), st.text("\\u").map(str.encode))


@given(values)
def test_letters(value: bytes) -> None:
    """Whatever the bytes are, and without a warning of an escape that Python does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Piece(value).letters == letters_of(end_escape(value))


@given(values)
def test_letters_measure_what_they_stand_for(value: bytes) -> None:
    assert measure(Piece(value).letters) == len(end_escape(value))


@given(values, st.integers(1, 9))
def test_no_piece_ends_within_an_escape(value: bytes, piece_bytes: int) -> None:
    """So what their letters stand for does not depend on where a value is cut."""
    pieces = JsonText(value, piece_bytes).pieces
    assert b"".join([piece.value for piece in pieces]) == value
    assert b"".join([letters_of(end_escape(piece.value)) for piece in pieces]) == letters_of(end_escape(value))
    assert not any(piece.letters.endswith(b"\r") for piece in pieces[:-1])


def test_long_values_are_cut_and_others_are_not() -> None:
    for size, count in ((0, 0), (1, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 2, 2), (64 * PIECE_BYTES, 64)):
        assert len(JsonText(b"x" * size).pieces) == count
    assert len(JsonText(b"\\" * 1_000_000).pieces) == 1
