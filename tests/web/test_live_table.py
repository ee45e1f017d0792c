"""What is live, by medium and state: the order never changes, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.web.live_table import MEDIA, Share, arrange
from schemas.query import LiveCount

_counts = st.dictionaries(
    st.tuples(st.sampled_from(MEDIA), st.sampled_from(["connected", "alerting", "parked", "hovering", "other"])),
    st.integers(1, 10_000),
)


@given(_counts)
def test_every_medium_has_its_row_and_every_count_its_place(counts: dict[tuple[str, str], int]) -> None:
    rows = arrange([LiveCount(media, state, count) for (media, state), count in counts.items()])  # type: ignore[arg-type]
    assert tuple(row.media for row in rows) == MEDIA
    assert {(row.media, share.state): share.count for row in rows for share in row.shares} == counts
    for row in rows:
        assert row.count == sum(share.count for share in row.shares)
        assert sum(share.width for share in row.shares) <= 100.1


def test_states_are_in_the_order_in_which_they_happen() -> None:
    live = [LiveCount("call", state, 1) for state in ("parked", "zooming", "connected", "hovering")]
    row = arrange([*live, LiveCount("email", "alerting", 2)])[0]
    assert row.shares == [
        Share("connected", 1, 0, 25), Share("parked", 1, 25, 25),
        Share("hovering", 1, 50, 25), Share("zooming", 1, 75, 25),
    ]  # fmt: skip
