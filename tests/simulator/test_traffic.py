"""The stream follows its parameters, and every unbroken value fits the wire model."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest

from consumer.core.reading import Rejected
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.snapshot import decode
from consumer.simulator.traffic import DORMANT_PER_ACTIVE_MAX, Draft, Traffic, records
from schemas.inbound import FlatParticipant, Participant, Payload

COUNT = 8_000
PAYLOAD = msgspec.json.Decoder(Payload)
PARTICIPANT = msgspec.json.Decoder(Participant)
FLAT_PARTICIPANT = msgspec.json.Decoder(FlatParticipant)


def take(count: int = COUNT, **shape: Any) -> list[Draft]:
    return list(islice(records(Traffic(**shape)), count))


def in_true_order(drafts: list[Draft]) -> list[Draft]:
    """The records in true order, without repetitions."""
    return [draft for _, draft in sorted({draft.true_order: draft for draft in drafts}.items())]


def clean(**shape: Any) -> Traffic:
    return Traffic(**{"disorder": 0, "duplicates": 0, "broken": 0, "ignorable": 0, "flat": 0, **shape})


def test_a_seed_repeats_byte_for_byte() -> None:
    assert take(2_000, seed=5) == take(2_000, seed=5)


def test_another_seed_gives_other_records() -> None:
    assert take(50, seed=5) != take(50, seed=6)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert take(2_000)[:500] == take(500)


def is_update(draft: Draft) -> bool:
    return draft.key is not None and not draft.broken


def is_frame(draft: Draft) -> bool:
    return draft.key is None and not draft.broken


def in_eventbridge(draft: Draft) -> bool:
    return draft.value.startswith(b'{"version":"0"')


@pytest.mark.parametrize(
    ("shape", "of", "counts"),
    [
        ({"broken": 0.05}, lambda _: True, lambda draft: draft.broken),
        ({"ignorable": 0.3}, lambda _: True, is_frame),
        ({"broken": 0.4, "ignorable": 0.4}, lambda _: True, lambda draft: draft.broken),
        ({"eventbridge": 0.6}, is_update, in_eventbridge),
        ({"bare": 0.4, "flat": 0.0}, is_update, lambda draft: draft.value.startswith(b'{"id"')),
    ],
    ids=["broken", "ignorable", "many extra", "eventbridge", "bare"],
)
def test_a_share_is_kept(shape: dict[str, Any], of: Callable[[Draft], bool], counts: Callable[[Draft], bool]) -> None:
    drafts = [draft for draft in in_true_order(take(**shape)) if of(draft)]

    share = sum(map(counts, drafts)) / len(drafts)

    assert share == pytest.approx(next(iter(shape.values())), abs=0.02)


def test_the_share_of_duplicates_is_kept() -> None:
    drafts = take(duplicates=0.3, delay_s_max=1)

    assert len(drafts) / len(in_true_order(drafts)) == pytest.approx(1.3, abs=0.02)


def test_the_share_of_late_records_is_kept() -> None:
    drafts = take(disorder=0.3, duplicates=0, delay_s_max=1)
    newest, late = -1, 0
    for draft in drafts:
        late += draft.true_order < newest
        newest = max(newest, draft.true_order)

    assert late / len(drafts) == pytest.approx(0.3, abs=0.02)


def test_the_share_of_flat_copies_is_kept() -> None:
    """In the media that have a flat topic."""
    drafts = list(islice(records(clean(flat=1)), COUNT))
    flat = [draft for draft in drafts if b'"otherMediaUris"' in draft.value]

    assert len(flat) / (len(drafts) - len(flat)) == pytest.approx(1, abs=0.05)


def test_without_disorder_arrival_is_the_true_order() -> None:
    assert [draft.true_order for draft in islice(records(clean()), COUNT)] == list(range(COUNT))


def test_true_order_is_the_order_of_events() -> None:
    events = [draft.event_ms for draft in in_true_order(take())]

    assert events == sorted(events)


def test_records_of_a_conversation_are_published_in_true_order() -> None:
    published: dict[bytes | None, int] = {}
    for draft in filter(is_update, in_true_order(take(conversations=20, records_per_s=5_000))):
        assert published.get(draft.key, 0) <= draft.timestamp_ms
        published[draft.key] = draft.timestamp_ms

    assert len(published) > 20


def test_records_are_published_soon_and_delivered_in_time() -> None:
    traffic = Traffic(delay_s_max=3)
    now_ms = traffic.start_ms
    for draft in islice(records(traffic), COUNT):
        assert 0 < draft.timestamp_ms - draft.event_ms < 1_000
        now_ms = max(now_ms, draft.event_ms)
        assert now_ms - draft.event_ms <= 3_000 + 200


def test_stream_time_moves_smoothly_without_compression() -> None:
    """Threads that reopen and parks that end hours later do not make it jump."""
    traffic = clean(records_per_s=20, conversations=320)
    assert traffic.compression == 1
    times = [draft.event_ms for draft in islice(records(traffic), COUNT)]

    assert max(after - before for before, after in pairwise(times)) < 10_000


def test_the_pace_is_about_the_one_in_the_parameters() -> None:
    traffic = clean(records_per_s=300, conversations=150)
    drafts = list(islice(records(traffic), COUNT))

    assert COUNT * 1_000 / (drafts[-1].event_ms - traffic.start_ms) == pytest.approx(300, rel=0.15)


def test_memory_is_bounded_by_the_number_of_conversations() -> None:
    """A conversation with records in both halves of the stream has to be in memory between them."""
    keys = [draft.key for draft in islice(records(clean(conversations=20, records_per_s=20)), 20_000)]
    held = set(keys[:10_000]) & set(keys[10_000:])

    assert len(held) <= 20 * (1 + DORMANT_PER_ACTIVE_MAX) + 20


def test_every_unbroken_value_fits_the_wire_model() -> None:
    for draft in filter(is_update, take()):
        payload = PAYLOAD.decode(draft.value)
        body = payload.event_body or (payload.detail and payload.detail.event_body) or payload
        assert body.id
        assert draft.key == body.id.encode()
        assert body.participants
        for participant in body.participants:
            if b'"otherMediaUris"' in draft.value:
                assert FLAT_PARTICIPANT.decode(participant).state
            else:
                assert PARTICIPANT.decode(participant).id


def test_values_have_a_realistic_size() -> None:
    sizes = sorted(len(draft.value) for draft in islice(records(clean()), COUNT))

    assert 3_000 < sum(sizes) / COUNT < 4_500
    assert sizes[COUNT // 20] > 1_000
    assert sizes[-1] < 30_000


def test_records_that_are_no_updates_have_no_key() -> None:
    frames = list(filter(is_frame, take(ignorable=0.2)))

    assert any(b"Heartbeat" in draft.value for draft in frames)
    assert any(b'"status":"subscribed"' in draft.value for draft in frames)
    assert any(b"v2.system." in draft.value for draft in frames)
    assert any(b"v2.detail.events." in draft.value for draft in frames)


def test_only_broken_records_are_rejected() -> None:
    reasons: Counter[str] = Counter()
    for draft in take(broken=0.2):
        record = Record("updates", 0, 0, draft.timestamp_ms, draft.key, draft.value, draft.headers)
        outcome = decode(record, Rules())
        assert isinstance(outcome, Rejected) == draft.broken, outcome
        if isinstance(outcome, Rejected):
            reasons[outcome.reason] += 1

    assert set(reasons) == {"bad_json", "bad_utf8", "wrong_type", "no_conversation_id", "key_mismatch"}


def test_broken_records_have_every_envelope_and_kind_of_key() -> None:
    broken = [draft for draft in take(broken=0.3, eventbridge=0.4, bare=0.3, flat=0) if draft.broken]
    stories = {draft.key for draft in take(broken=0.3, eventbridge=0.4, bare=0.3, flat=0) if is_update(draft)}
    keys = Counter("none" if draft.key is None else "right" if draft.key in stories else "wrong" for draft in broken)
    envelopes = Counter(dict(draft.headers).get("relay", b"bare") for draft in broken)

    assert {kind: count / len(broken) for kind, count in keys.items()} == {
        "right": pytest.approx(5 / 7, abs=0.05),
        "wrong": pytest.approx(1 / 7, abs=0.05),
        "none": pytest.approx(1 / 7, abs=0.05),
    }
    assert {kind: count / len(broken) for kind, count in envelopes.items()} == {
        b"eventbridge": pytest.approx(0.4, abs=0.05),
        b"bare": pytest.approx(0.3, abs=0.05),
        b"websocket": pytest.approx(0.3, abs=0.05),
    }


@pytest.mark.parametrize(
    "shape", [{"eventbridge": 0.7, "bare": 0.4}, {"broken": 0.5, "ignorable": 0.5}], ids=["envelopes", "extra"]
)
def test_shares_that_exceed_1_together_are_refused(shape: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at most"):
        Traffic(**shape)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError, match="at most"):
        msgspec.convert(shape, Traffic)


SHARES = ("disorder", "duplicates", "broken", "flat", "eventbridge", "bare", "ignorable")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((share, value) for share in SHARES for value in (-0.1, 1.1, math.nan)),
        ("start_ms", 0),
        ("conversations", 0),
        ("conversations", -5),
        ("delay_s_max", -1),
        ("delay_s_max", 3_600),
        ("delay_s_max", math.inf),
        ("records_per_s", 0),
        ("records_per_s", -1),
        ("records_per_s", math.nan),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be from .* to .*, not {value}$"):
        Traffic(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError, match=f"^{name} must be"):
        msgspec.convert({name: value}, Traffic)


def test_every_bound_is_allowed() -> None:
    most = Traffic(disorder=1, duplicates=1, flat=1, eventbridge=1, bare=0, broken=0.9, ignorable=0, delay_s_max=600)
    least = Traffic(disorder=0, duplicates=0, flat=0, eventbridge=0, bare=0, broken=0, ignorable=0, delay_s_max=0)

    assert len(list(islice(records(most), 100))) == len(list(islice(records(least), 100))) == 100
