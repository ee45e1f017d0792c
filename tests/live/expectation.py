"""What the model says of the records of a topic, conversation by conversation, and each conversation only once.

The model is slow. Tests feed the same records again and again, so what it said of a conversation is remembered.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from consumer.core.record import Record
from tests import model

USED = "applied or unchanged"
"""What the model cannot tell apart, for it knows no order of arrival."""


class Expectation(Struct):
    """What has to come of a set of records."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The state of each conversation, without `source`."""
    standing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The standing transitions by id."""
    rejected: dict[tuple[int, int], Record] = field(default_factory=dict)
    """The records that have to be dead letters, by (partition, offset)."""
    fates: dict[tuple[int, int], str] = field(default_factory=dict)
    """`ignored`, `dead_lettered` or `USED`, by (partition, offset)."""

    def dispositions(self) -> Counter[str]:
        """How many records have each fate."""
        return Counter(self.fates.values())


class _Said(Struct, frozen=True):
    """What the model said of the records of one key."""

    document: dict[str, Any] | None
    standing: list[dict[str, Any]]
    fates: list[str]


_REMEMBERED: dict[tuple[bytes, model.Rules], _Said] = {}
_REMEMBERED_MAX = 20_000


def expect(records: Iterable[Record], rules: model.Rules) -> Expectation:
    """Ask the model. A conversation's records all have its id as their key; those with another are dead letters."""
    assert rules.key_mismatch == "dead_letter"
    by_key: dict[bytes | None, list[Record]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(record)
    found = Expectation()
    for key, some in by_key.items():
        said = _said(some, rules)
        if said.document is not None:
            assert key is not None
            found.documents[key.decode()] = said.document
        found.standing.update((each["id"], each) for each in said.standing)
        for record, fate in zip(some, said.fates, strict=True):
            place = (record.partition, record.offset)
            found.fates[place] = fate
            if fate == "dead_lettered":
                found.rejected[place] = record
    return found


def _said(records: Sequence[Record], rules: model.Rules) -> _Said:
    digest = hashlib.blake2b()
    for record in records:
        digest.update(repr((record.timestamp_ms, record.key, record.value, record.headers)).encode())
    identity = (digest.digest(), rules)
    if identity not in _REMEMBERED:
        if len(_REMEMBERED) >= _REMEMBERED_MAX:
            _REMEMBERED.clear()
        _REMEMBERED[identity] = _ask(records, rules)
    return _REMEMBERED[identity]


def _ask(records: Sequence[Record], rules: model.Rules) -> _Said:
    verdicts = [model.judge(record, rules) for record in records]
    sights = [each for each in verdicts if isinstance(each, model.Sight)]
    fates = [_fate(each) for each in verdicts]
    if not sights:
        return _Said(None, [], fates)
    (conversation_id,) = {each.conversation_id for each in sights}
    document = model.conversation_document(conversation_id, sights, rules)
    return _Said(document, model.standing_of(conversation_id, sights, rules), fates)


def _fate(verdict: model.Verdict) -> str:
    match verdict:
        case model.Ignored():
            return "ignored"
        case model.Rejected():
            return "dead_lettered"
        case model.Sight():
            return USED
