"""The frames that relays put around values, and their spellings of keys, around records that were generated before.

Nothing is drawn here: the records within are those of the same traffic without frames. A broken value stays broken.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import Any, Final

from msgspec.structs import replace

from consumer.simulator.traffic import Draft

_Wrap = Callable[[bytes], bytes]


def _quote(value: bytes) -> bytes:
    """A JSON text of a value; bytes that are not UTF-8 stay as they are."""
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def _put(members: dict[str, Any], name: str, write: _Wrap, value: bytes) -> bytes:
    """An object with a value as its last member."""
    return b'%b,"%b":%b}' % (json.dumps(members, separators=(",", ":")).encode()[:-1], name.encode(), write(value))


_VALUES: Final[dict[str, _Wrap]] = {
    "byte_order_mark": lambda value: b"\xef\xbb\xbf" + value,
    "confluent": lambda value: b"\0\0\0\0\x07" + value,
    "connect": partial(_put, {"schema": {"type": "struct", "fields": [], "optional": False}}, "payload", bytes),
    "cloudevents": partial(
        _put,
        {"specversion": "1.0", "id": "1", "source": "/relay", "type": "conversation", "datacontenttype": "text/json"},
        "data",
        bytes,
    ),
    "sns": partial(_put, {"Type": "Notification", "MessageId": "1"}, "Message", _quote),
    "sqs": partial(_put, {"MessageId": "1", "ReceiptHandle": "1"}, "Body", _quote),
    "text": _quote,
    "array": lambda value: b"[%b]" % value,
    "lines": lambda value: b"%b\n%b\n" % (value, value),
}
_KEYS: Final[dict[str, _Wrap]] = {
    "key_confluent": lambda key: b"\0\0\0\0\x05" + key,
    "key_connect": partial(_put, {"schema": {"type": "string", "optional": False}}, "payload", _quote),
    "key_text": _quote,
    "key_case": bytes.upper,
}
FRAMES: Final = (*_VALUES, *_KEYS)
"""The names, as `conversation_framings_total` has them."""


def frame(drafts: Iterable[Draft], frames: Sequence[str]) -> Iterator[Draft]:
    """The records as a relay writes them that puts `frames` around each, the first outermost."""
    values = [_VALUES[name] for name in reversed(frames) if name in _VALUES]
    keys = [_KEYS[name] for name in reversed(frames) if name in _KEYS]
    for draft in drafts:
        key = draft.key and _wrap(draft.key, keys)
        yield replace(draft, key=key, value=_wrap(draft.value, values))


def _wrap(content: bytes, wraps: Sequence[_Wrap]) -> bytes:
    return reduce(lambda within, wrap: wrap(within), wraps, content)
