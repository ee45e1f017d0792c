"""Traffic in a file: one JSON object per line, the fields of `Draft` by name, bytes in base64.

    {"key":"Y29u…","value":"eyJ0…","timestamp_ms":1767225600250,"true_order":0,"broken":false,
     "headers":[["relay","d2Vi…"]],"event_ms":1767225600003}

The lines are in the order of delivery; sorted by `true_order` they are in the order of the events.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from consumer.simulator.traffic import Draft

LINE_BYTES_MAX: Final = 16 * 1_048_576
"""`lines` writes no longer ones, so that a reader may stop there."""


class RecordingError(ValueError):
    """A line that `generate` did not write. The message has the line's number, from 1, and none of its data."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Draft)


def lines(drafts: Iterable[Draft]) -> Iterator[bytes]:
    """A line per record, with its line end."""
    return (_ENCODER.encode(draft) + b"\n" for draft in drafts)


def read(recorded: Iterable[bytes]) -> Iterator[Draft]:
    """The records of such lines. Raises RecordingError for any other line."""
    for number, line in enumerate(recorded, 1):
        try:
            yield _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RecordingError(f"line {number} is not a record written by `generate`: {error}") from error
