"""The outputs that the model expects from the records of a topic.

The model is slow and tests write the same records many times, so its results are cached by conversation.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from consumer.core.record import Record
from tests import model

USED = "applied or unchanged"
"""One disposition for both: the model cannot distinguish them, because it does not know the order of arrival."""


class Expectation(Struct):
    """The outputs that a set of records must have."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Conversation id -> its state without `source`."""
    standing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The standing transitions by id."""
    rejected: dict[tuple[int, int], Record] = field(default_factory=dict)
    """The records that must become dead letters, by (partition, offset)."""
    fates: dict[tuple[int, int], str] = field(default_factory=dict)
    """`ignored`, `dead_lettered` or `USED`, by (partition, offset)."""

    def dispositions(self) -> Counter[str]:
        """The number of records by disposition."""
        return Counter(self.fates.values())


class _Result(Struct, frozen=True):
    """The model's result for the records of one key."""

    document: dict[str, Any] | None
    standing: list[dict[str, Any]]
    fates: list[str]


_CACHE: dict[tuple[bytes, model.Rules], _Result] = {}
_CACHE_MAX = 20_000


def expect(records: Iterable[Record], rules: model.Rules) -> Expectation:
    """Run the model per key: records whose key is not their conversation id, nor a spelling of it, are dead letters."""
    by_key: dict[bytes | None, list[Record]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(record)
    expectation = Expectation()
    for same_key in by_key.values():
        result = _look_up(same_key, rules)
        if result.document is not None:
            expectation.documents[result.document["conversationId"]] = result.document
        expectation.standing.update((transition["id"], transition) for transition in result.standing)
        for record, fate in zip(same_key, result.fates, strict=True):
            source = (record.partition, record.offset)
            expectation.fates[source] = fate
            if fate == "dead_lettered":
                expectation.rejected[source] = record
    return expectation


def _look_up(records: Sequence[Record], rules: model.Rules) -> _Result:
    digest = hashlib.blake2b()
    for record in records:
        digest.update(repr((record.timestamp_ms, record.key, record.value, record.headers)).encode())
    identity = (digest.digest(), rules)
    if identity not in _CACHE:
        if len(_CACHE) >= _CACHE_MAX:
            _CACHE.clear()
        _CACHE[identity] = _compute(records, rules)
    return _CACHE[identity]


def _compute(records: Sequence[Record], rules: model.Rules) -> _Result:
    verdicts = [model.judge(record, rules) for record in records]
    used = [verdict for verdict in verdicts if isinstance(verdict, model.Snapshot)]
    snapshots = [snapshot for verdict in used for snapshot in (*verdict.others, verdict)]
    fates = [_fate(verdict) for verdict in verdicts]
    if not snapshots:
        return _Result(None, [], fates)
    (conversation_id,) = {snapshot.conversation_id for snapshot in snapshots}
    document = model.conversation_document(conversation_id, snapshots, rules)
    return _Result(document, model.standing_of(conversation_id, snapshots, rules), fates)


def _fate(verdict: model.Verdict) -> str:
    match verdict:
        case model.Ignored():
            return "ignored"
        case model.Rejected():
            return "dead_lettered"
        case model.Snapshot():
            return USED
