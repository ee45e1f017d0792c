"""The short histories of the live page: what a sample holds, and how those of several workers add up."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.query.recent_activity import RecentActivity
from consumer.query.trends import SAMPLES_MAX, SLOT_MS, Sample, Trends, add_up
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Effects


class Scene:
    """A worker's trends, with what they are taken from."""

    def __init__(self) -> None:
        self.now_ms, self.lag_records, self.is_cut_off = 0, 0, False
        self.recent_activity = RecentActivity(lambda: self.now_ms)
        self.trends = Trends(
            self.recent_activity, lambda: self.lag_records, lambda: self.is_cut_off, lambda: self.now_ms
        )

    def commit(self, *, dead_letters: int = 0, retracted: int = 0, age_ms: int = 0) -> None:
        letters = [Output(None, b"", (("cc-reason", b"late"),))] * dead_letters
        stats = CommitStats(ages_ms=[age_ms])
        stats.records["applied", ""] += 1
        stats.retracted["call"] += retracted
        self.recent_activity.add(Effects(1, OffsetMetadata(), [], [], letters), stats)

    def sample(self) -> Sample:
        self.now_ms += SLOT_MS
        self.trends.sample()
        return self.trends.read()[-1]


def test_a_sample_counts_what_came_since_the_one_before() -> None:
    scene = Scene()
    scene.commit(dead_letters=2, retracted=3, age_ms=40)
    scene.commit(age_ms=90)
    scene.commit(retracted=1, age_ms=10)
    scene.lag_records = 7
    assert scene.sample() == Sample(1, 7, 90, 2, 4)
    scene.commit(dead_letters=1, age_ms=20)
    assert scene.sample() == Sample(2, 7, 20, 1, 0)


def test_delay_grows_while_records_wait_and_none_is_processed() -> None:
    scene = Scene()
    scene.commit(age_ms=1_000)
    assert scene.sample().delay_ms == 1_000
    assert scene.sample().delay_ms == 0
    scene.lag_records = 1
    assert [scene.sample().delay_ms for _ in range(2)] == [SLOT_MS, 2 * SLOT_MS]
    scene.lag_records, scene.is_cut_off = 0, True
    assert scene.sample().delay_ms == 3 * SLOT_MS
    scene.is_cut_off = False
    assert scene.sample().delay_ms == 0


def test_only_the_latest_samples_are_kept() -> None:
    scene = Scene()
    for _ in range(SAMPLES_MAX + 5):
        scene.sample()
    assert [sample.slot for sample in scene.trends.read()] == list(range(6, SAMPLES_MAX + 6))


_histories = st.lists(
    st.lists(st.builds(Sample, st.integers(0, 300), *[st.integers(0, 9)] * 4), max_size=SAMPLES_MAX), max_size=3
)


@given(_histories)
def test_histories_add_up_slot_by_slot_in_any_order(histories: list[list[Sample]]) -> None:
    total = add_up(*histories)
    samples = [sample for history in histories for sample in history]
    assert [sample.slot for sample in total] == sorted({sample.slot for sample in samples})[-SAMPLES_MAX:]
    for sample in total:
        same = [one for one in samples if one.slot == sample.slot]
        assert sample == Sample(
            sample.slot,
            sum(one.lag_records for one in same),
            max(one.delay_ms for one in same),
            sum(one.dead_letters for one in same),
            sum(one.corrections for one in same),
        )
    assert add_up(*reversed(histories)) == total


@given(st.lists(st.integers(0, SLOT_MS // 2 - 1), max_size=20), st.integers(0, 10 * SLOT_MS))
def test_no_slot_is_missed_by_turns_that_come_late(late_ms: list[int], begin_ms: int) -> None:
    scene = Scene()
    scene.now_ms = begin_ms
    for late in late_ms:
        scene.now_ms += round(scene.trends.seconds_to_next() * 1_000) + late
        scene.trends.sample()
    slots = [sample.slot for sample in scene.trends.read()]
    assert slots == list(range(begin_ms // SLOT_MS + 1, begin_ms // SLOT_MS + 1 + len(late_ms)))
