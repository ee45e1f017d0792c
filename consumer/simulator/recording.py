"""Traffic in a file: one JSON object per line, with key and value in base64."""

from collections.abc import Iterable, Iterator

import msgspec

from consumer.simulator.traffic import Draft

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Draft)


def lines(drafts: Iterable[Draft]) -> Iterator[bytes]:
    """A line, with its end, per record."""
    return (_ENCODER.encode(draft) + b"\n" for draft in drafts)


def read(recorded: Iterable[bytes]) -> Iterator[Draft]:
    """The records of such lines. Raises msgspec.DecodeError on any other."""
    return (_DECODER.decode(line) for line in recorded)
