"""One lane on a broker in memory: the order of its calls, and what is visible after every failure."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from consumer.core.record import Record
from consumer.engine.output import Output
from consumer.engine.protocol import Engine, EngineFailedError, Slice
from consumer.settings import Settings
from consumer.worker import lane as lane_module
from consumer.worker.commit_policy import CommitPolicy
from consumer.worker.lane import Lane
from consumer.worker.ports import (
    ACTIVITIES,
    Committed,
    ConfigurationError,
    Effects,
    FencedError,
    RetriableError,
    UnreadableError,
)
from consumer.worker.settlement import Settlement
from tests.engines import StagingStates, states_of
from tests.fakes import (
    UNREACHABLE,
    WAIT_S,
    Broker,
    FakePublisher,
    FakeTelemetry,
    fails,
    lane_context,
    list_effects,
    nothing,
    turns,
    until,
)
from tests.strategies import BASE_MS
from tests.worker.scenes import FOREVER_MS, HOUR_S, call, first_states, heartbeat, rubbish, settings_of

pytestmark = pytest.mark.usefixtures("each_engine")

COMMIT_PER_RECORD = {"commit_records_max": 1, "slice_ms_max": 1e-6}


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.001)
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 0.0)


class Scene:
    """A lane of partition 0 with its broker and telemetry."""

    def __init__(self, broker: Broker, engine: Engine | None = None, /, **changed: Any) -> None:
        self.settings: Settings = settings_of(**changed)
        self.broker = broker
        self.partition = broker.partitions[0]
        self.telemetry = FakeTelemetry()
        self.observed: list[Effects] = []
        """The effects that the lane passed on as committed."""
        context = lane_context(
            broker, self.settings, self.telemetry, BASE_MS, lambda effects, _: self.observed.append(effects)
        )
        self.lane = Lane(
            0, engine or context.new_engine(), self.settings, lambda: CommitPolicy.of(self.settings, 1), context
        )

    @property
    def store(self) -> StagingStates:
        return states_of(self.lane.engine)

    def operations(self) -> list[tuple[str, str, str]]:
        """(conversation, operation, state) of the published transitions."""
        transitions = [json.loads(output.value or b"") for output in self.partition.transitions]
        return [(transition["conversationId"], transition["op"], transition["to"]) for transition in transitions]

    def dead_letter_headers(self) -> list[dict[str, str]]:
        """The headers of the published dead letters."""
        return [
            {name: (value or b"").decode() for name, value in letter.headers} for letter in self.partition.dead_letters
        ]

    def reaches(self, offset: int) -> Callable[[], bool]:
        """A condition: the lane has committed up to an offset and fetches from there."""
        return lambda: (
            self.partition.committed is not None
            and self.partition.committed.next_offset == offset
            and self.broker.last_call() == f"fetch {offset}"
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(self.lane.run())
        try:
            yield task
            self.lane.stop()
            await asyncio.wait_for(asyncio.shield(task), WAIT_S)
            assert self.lane.phase == "closed"
        finally:
            task.cancel()

    async def consume(self, offset: int) -> "Scene":
        """Run the lane until it has committed up to an offset, then stop it."""
        async with self.run():
            await until(self.reaches(offset))
        return self


def make_records() -> list[Record]:
    """Two conversations from offset 10 on: disorder, a repetition, a dead letter and an ignored record."""
    return [
        call(10, "alerting", 1),
        call(11, "alerting", 2, "c2"),
        call(12, "disconnected", 9),
        rubbish(13),
        call(14, "connected", 5),
        call(15, "connected", 5),
        heartbeat(16),
        call(17, "connected", 6, "c2"),
    ]


async def test_lane_fences_reads_offset_restores_then_consumes() -> None:
    """A lane fences before it reads the committed offset, and restores before it consumes."""
    broker = Broker([call(3, "alerting", 1), call(4, "connected", 2)])
    broker.partitions[0].committed = Committed(4, "")
    broker.partitions[0].logs["state"] += [Output(b"gone", None)] * 3
    scene = Scene(broker)
    phases: list[str] = []

    async def note() -> None:
        phases.append(scene.lane.phase)

    for call_name in ("member", "open", "committed", "seek", "read", "chunk", "fetch"):
        broker.at(call_name, note)
    await scene.consume(5)
    assert broker.calls[:7] == ["member", "open", "committed", "seek 4", "read 0", "chunk", "fetch 4"]
    assert phases == ["opening"] * 6 + ["running"]
    assert scene.telemetry.of("restoring") == [(0, 1), (0, 0)]
    assert [effects.next_offset for effects in scene.partition.commits] == [5]
    assert scene.operations() == [("c1", "assert", "connected")]


async def test_lane_without_a_committed_offset_starts_at_the_beginning() -> None:
    scene = await Scene(Broker(make_records())).consume(18)
    assert scene.broker.calls[:6] == ["member", "open", "committed", "seek None", "read 0", "fetch 10"]


@pytest.mark.parametrize("call_name", ["member", "open", "committed", "seek", "read", "chunk"])
async def test_slow_opening_delays_the_first_fetch(call_name: str) -> None:
    """The lane makes no further call, and fetches nothing, before the slow call returns."""
    scene = Scene(Broker(make_records()))
    scene.partition.logs["state"] += [Output(b"gone", None)] * 4
    scene.partition.committed = Committed(10, "")
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    scene.broker.at(call_name, wait)
    async with scene.run():
        await until(lambda: scene.broker.last_call().startswith(call_name))
        await turns()
        assert scene.broker.last_call().startswith(call_name)
        assert scene.lane.phase == "opening"
        gate.set()
        await until(scene.reaches(18))


async def test_opened_lane_continues_from_the_last_owners_states() -> None:
    broker = Broker(make_records()[:4])
    await Scene(broker).consume(14)
    broker.partitions[0].input.extend(make_records()[4:])
    second = await Scene(broker).consume(18)
    alone = await Scene(Broker(make_records())).consume(18)
    assert second.partition.states() == alone.partition.states()
    assert second.partition.transitions == alone.partition.transitions
    assert second.telemetry.of("offset_reset") == alone.telemetry.of("offset_reset") == []
    assert dict(second.store.items()) == {key.decode(): state for key, state in second.partition.states().items()}


async def test_every_restored_chunk_is_progress() -> None:
    """A long restore does not make the lane look stalled."""
    scene = Scene(Broker())
    scene.partition.logs["state"] += [Output(b"gone", None)] * 6
    scene.partition.committed = Committed(0, "")
    ages_s: list[float] = []

    async def take_30_s() -> None:
        ages_s.append(scene.broker.clock.now_s - scene.lane.last_progress_s)
        scene.broker.clock.now_s += 30.0

    scene.broker.at("chunk", take_30_s, take_30_s)
    async with scene.run():
        await until(lambda: scene.lane.phase == "running")
    assert ages_s == [0.0, 0.0]


async def test_lane_in_backoff_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 5.0)
    scene = Scene(Broker(make_records()))
    scene.broker.at("commit", UNREACHABLE)
    async with scene.run():
        await until(lambda: scene.lane.phase == "failing")
        scene.broker.clock.now_s += 4.9
        await turns()
        assert (scene.lane.phase, scene.lane.is_open, scene.lane.is_reading) == ("failing", False, False)
        scene.broker.clock.now_s += 0.1
        await until(scene.reaches(18))


async def test_kept_store_reads_only_new_states() -> None:
    broker = Broker(make_records()[:4])
    first = await Scene(broker).consume(14)
    broker.partitions[0].input.extend(make_records()[4:])
    await Scene(broker).consume(18)
    written = len(broker.partitions[0].logs["state"])
    broker.calls.clear()
    third = Scene(broker, first.lane.engine)
    async with third.run():
        await until(lambda: third.lane.phase == "running")
    assert f"read {first.store.log_offset}" not in broker.calls
    assert "read 2" in broker.calls
    assert third.store.log_offset == written
    assert dict(third.store.items()) == {key.decode(): state for key, state in third.partition.states().items()}


async def test_recreated_state_topic_under_a_kept_store_is_fatal() -> None:
    scene = Scene(Broker())
    scene.store.log_offset = 1
    with pytest.raises(ConfigurationError, match="truncated or recreated"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert "fetch" not in " ".join(scene.broker.calls)
    assert scene.broker.calls.count("read 1") == 2
    assert scene.lane.phase == "closed"


async def test_commit_holds_its_records_effects_and_the_next_offset() -> None:
    scene = await Scene(Broker(make_records())).consume(18)
    (effects,) = scene.partition.commits
    metadata = f"stream-ms={BASE_MS + 9_000} conversations=2 state-offset=2 transitions-offset=7 dead-letters-offset=1"
    assert scene.partition.committed == Committed(18, metadata)
    assert sorted(output.key or b"" for output in effects.states) == [b"c1", b"c2"]
    assert first_states(scene.partition.states()) == {"c1": "disconnected", "c2": "connected"}
    assert scene.operations() == [
        ("c1", "assert", "alerting"),
        ("c2", "assert", "alerting"),
        ("c1", "assert", "disconnected"),
        ("c1", "retract", "disconnected"),
        ("c1", "assert", "connected"),
        ("c1", "assert", "disconnected"),
        ("c2", "assert", "connected"),
    ]
    assert {output.key for output in effects.transitions} == {b"c1", b"c2"}
    ((partition, stats, _, lag_records),) = scene.telemetry.of("committed")
    assert (partition, lag_records) == (0, 0)
    assert stats.records == {
        ("applied", ""): 5,
        ("unchanged", ""): 1,
        ("ignored", "heartbeat"): 1,
        ("dead_lettered", "bad_json"): 1,
    }


async def test_dead_letters_are_part_of_the_same_transaction() -> None:
    scene = await Scene(Broker(make_records())).consume(18)
    (effects,) = scene.partition.commits
    (letter,) = effects.dead_letters
    assert (letter.key, letter.value) == (b"rubbish-13", b'{"id":')
    assert scene.dead_letter_headers()[0]["cc-reason"] == "bad_json"
    assert scene.dead_letter_headers()[0]["cc-source-offset"] == "13"
    assert scene.dead_letter_headers()[0]["cc-service-version"] == "1.2.3"


@pytest.mark.parametrize("payload", ["keep", "drop"])
async def test_dead_letter_payload_follows_the_setting(payload: str) -> None:
    scene = await Scene(Broker([rubbish(0)]), dead_letter_payload=payload).consume(1)
    assert [letter.value for letter in scene.partition.dead_letters] == [b'{"id":' if payload == "keep" else b""]


@pytest.mark.parametrize(
    ("changed", "offsets"),
    [
        ({"commit_records_max": 1}, [11, 12, 13, 14, 15, 16, 17, 18]),
        ({"commit_records_max": 3}, [13, 16, 18]),
        ({"commit_records_max": 8}, [18]),
        ({"commit_bytes_max": 1}, [11, 12, 13, 14, 15, 18]),
        ({"commit_bytes_max": 10**9}, [18]),
    ],
)
async def test_commits_are_limited_by_records_and_by_bytes(changed: dict[str, int], offsets: list[int]) -> None:
    scene = await Scene(Broker(make_records()), slice_ms_max=1e-6, **changed).consume(18)
    assert [effects.next_offset for effects in scene.partition.commits] == offsets
    whole = await Scene(Broker(make_records())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


@pytest.mark.parametrize(("records_max", "offsets"), [(8, [10, 18]), (7, [10, 17, 18]), (3, [10, 13, 16, 18])])
async def test_fetch_returns_at_most_fetch_records_max(records_max: int, offsets: list[int]) -> None:
    scene = await Scene(Broker(make_records()), fetch_records_max=records_max).consume(18)
    fetched = {int(name.split(" ")[1]) for name in scene.broker.calls if name.startswith("fetch ")}
    assert sorted(fetched) == offsets


@pytest.mark.parametrize("left", [0, 1])
async def test_recreated_state_topic_ends_a_running_lane(left: int) -> None:
    scene = Scene(Broker(make_records()), **COMMIT_PER_RECORD)

    async def recreate() -> None:
        del scene.partition.logs["state"][left:]

    scene.broker.at("commit", nothing, nothing, recreate)
    with pytest.raises(ConfigurationError, match=rf"\(CC_STATE_TOPIC\) ends at {left + 1}, .* recreated"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)


async def test_commit_is_due_an_interval_after_the_first_effect() -> None:
    scene = Scene(Broker(make_records()), commit_interval_ms=700)
    started_s = scene.broker.clock.now_s
    await scene.consume(18)
    assert scene.broker.clock.now_s == pytest.approx(started_s + 0.7, abs=0.01)


@pytest.mark.parametrize(("seconds", "offsets"), [(0.8, [18]), (1.1, [16, 18])])
async def test_lane_that_catches_up_commits_once_a_second(seconds: float, offsets: list[int]) -> None:
    """While fetches are full, up to a second passes between two commits."""
    scene = Scene(Broker(make_records()), commit_interval_ms=700, fetch_records_max=3, slice_ms_max=60_000)

    async def pass_time() -> None:
        scene.broker.clock.now_s += seconds

    scene.broker.at("fetch", pass_time, pass_time, pass_time)
    await scene.consume(18)
    assert [effects.next_offset for effects in scene.partition.commits] == offsets


Reaction = Callable[[], Awaitable[None]]
FAILURES: dict[str, dict[str, list[Reaction]]] = {
    "the membership": {"member": [UNREACHABLE, UNREACHABLE]},
    "the opening": {"open": [UNREACHABLE, UNREACHABLE]},
    "the committed offset": {"committed": [UNREACHABLE]},
    "the seek": {"seek": [UNREACHABLE]},
    "the restore": {"read": [UNREACHABLE]},
    "a fetch": {"fetch": [nothing, UNREACHABLE]},
    "the first commit": {"commit": [UNREACHABLE]},
    "the first commit three times": {"commit": [UNREACHABLE] * 3},
    "the second commit": {"commit": [nothing, UNREACHABLE]},
    "the first answer": {"answer": [UNREACHABLE]},
    "the third answer": {"answer": [nothing, nothing, UNREACHABLE]},
    "a commit, and the restore after it": {
        "commit": [nothing, UNREACHABLE],
        "read": [nothing, UNREACHABLE],
        "chunk": [UNREACHABLE],
    },
}


@pytest.mark.parametrize("changed", [{}, {"commit_records_max": 3, "slice_ms_max": 1e-6}, COMMIT_PER_RECORD])
@pytest.mark.parametrize("failing", FAILURES)
async def test_retry_of_any_failure_has_the_same_result(failing: str, changed: dict[str, Any]) -> None:
    whole = await Scene(Broker(make_records()), **changed).consume(18)
    scene = Scene(Broker(make_records()), **changed)
    for call_name, reactions in FAILURES[failing].items():
        scene.broker.at(call_name, *reactions)
    await scene.consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions
    assert scene.partition.dead_letters == whole.partition.dead_letters
    assert scene.partition.committed == whole.partition.committed
    assert dict(scene.store.items()) == dict(whole.store.items())
    assert scene.partition.logs["state"][scene.store.log_offset :] in ([], [None])  # only a marker may be left


@pytest.mark.parametrize("failing", ["commit", "answer"])
async def test_failed_commit_drops_staged_states_and_reopens(failing: str) -> None:
    """The lane opens again with a new producer."""
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]), **COMMIT_PER_RECORD)
    stores: list[tuple[str | None, bool, int]] = []

    async def look() -> None:
        known = scene.store.lookup("c1")
        state = None if known is None else first_states({b"c1": known.published})["c1"]
        stores.append((state, bool(list(scene.store.staged())), scene.partition.epoch))

    scene.broker.at("open", nothing, look)
    scene.broker.at(failing, nothing, UNREACHABLE)
    await scene.consume(2)
    assert stores == [("alerting", False, 1)]
    assert scene.partition.epoch == 2
    failed = scene.broker.calls.index("close")
    resumed_at = 1 if failing == "commit" else 2
    assert scene.broker.calls[failed : failed + 6] == [
        "close", "member", "open", "committed", f"seek {resumed_at}", "read 1",
    ]  # fmt: skip
    assert [type(error) for _, error in scene.telemetry.of("commit_failed")] == [RetriableError]
    assert scene.operations() == [("c1", "assert", "alerting"), ("c1", "assert", "connected")]


async def test_failed_engine_drops_what_is_staged_and_reopens(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]))
    process, failures = scene.lane.engine.process, iter([EngineFailedError("it broke at offset 1")])

    def process_or_fail(*arguments: Any, **times: Any) -> Slice:
        done = process(*arguments, **times)
        for failure in failures:
            raise failure
        return done

    monkeypatch.setattr(scene.lane.engine, "process", process_or_fail)
    await scene.consume(2)
    assert scene.partition.epoch == 2
    assert [str(error) for _, error in scene.telemetry.of("commit_failed")] == ["it broke at offset 1"]
    assert scene.operations() == [("c1", "assert", "alerting"), ("c1", "assert", "connected")]


async def test_lane_outside_the_group_fences_no_producer() -> None:
    """A worker cut off from the group learns of no revocation, though it still reaches the brokers it writes to."""
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]), **COMMIT_PER_RECORD)
    epochs: list[int] = []

    async def revoke() -> None:
        epochs.append(scene.partition.epoch)
        await UNREACHABLE()

    async def take_over() -> None:
        scene.partition.epoch = 7
        await UNREACHABLE()

    scene.broker.at("commit", nothing, take_over)
    scene.broker.at("member", nothing, revoke, revoke, revoke)
    await scene.consume(2)
    assert epochs == [7, 7, 7]
    assert scene.partition.epoch == 8  # it is a member again


async def test_retried_record_counts_once() -> None:
    scene = Scene(Broker(make_records()))
    scene.broker.at("commit", UNREACHABLE, UNREACHABLE)
    await scene.consume(18)
    assert [stats.consumed for _, stats, *_ in scene.telemetry.of("committed")] == [8]


async def test_failed_fetch_after_a_commit_counts_no_record_twice() -> None:
    scene = Scene(Broker(make_records()), fetch_records_max=4, commit_records_max=4)
    scene.broker.at("fetch", nothing, UNREACHABLE)
    await scene.consume(18)
    assert [stats.consumed for _, stats, *_ in scene.telemetry.of("committed")] == [4, 4]
    assert len(scene.telemetry.of("commit_failed")) == 1


@pytest.mark.parametrize("changed", [{}, COMMIT_PER_RECORD])
async def test_commit_with_a_lost_answer_counts_once(changed: dict[str, Any]) -> None:
    """The committed offset, read again, proves that the commit succeeded."""
    scene = Scene(Broker(make_records()), **changed)
    scene.broker.at("answer", UNREACHABLE)
    scene.broker.at("committed", nothing, UNREACHABLE)
    await scene.consume(18)
    assert sum(stats.consumed for _, stats, *_ in scene.telemetry.of("committed")) == 8
    assert all(0 <= duration_s < 100 for _, _, duration_s, _ in scene.telemetry.of("committed"))
    assert len(scene.telemetry.of("commit_failed")) == 2


async def test_fenced_commit_is_not_counted() -> None:
    """The new owner counts its records."""
    scene = Scene(Broker(make_records()), session_timeout_ms=45_000)
    scene.broker.at("answer", fails(FencedError("taken over")))
    async with scene.run():
        await until(lambda: scene.lane.phase == "fenced")
        await turns(5)
        scene.broker.clock.now_s += 45.0
        await until(scene.reaches(18))
    assert scene.telemetry.of("committed") == []


async def test_breaker_counts_a_commit_with_a_lost_answer() -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=3)
    scene.broker.at("answer", UNREACHABLE)
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked")
        await turns()
    assert len(scene.partition.dead_letters) == 3
    assert [stats.consumed for _, stats, *_ in scene.telemetry.of("committed")] == [3]


@pytest.mark.parametrize("call_name", ["open", "committed", "seek", "read", "commit"])
async def test_retries_end_after_retry_s_max(call_name: str) -> None:
    scene = Scene(Broker(make_records()), retry_s_max=350.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    scene.broker.at(call_name, *[fail_later] * 4)
    await scene.consume(18)
    other = Scene(Broker(make_records()), retry_s_max=350.0)

    async def fail_later_too() -> None:
        other.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    other.broker.at(call_name, *[fail_later_too] * 5)
    with pytest.raises(ConfigurationError, match=r"partition 0 .* 350 s: no answer"):
        await asyncio.wait_for(other.lane.run(), WAIT_S)


async def test_commit_resets_the_time_of_retries() -> None:
    scene = Scene(Broker(make_records()), retry_s_max=150.0, **COMMIT_PER_RECORD)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    scene.broker.at("commit", *[fail_later, nothing] * 6)
    await scene.consume(18)
    assert len(scene.telemetry.of("commit_failed")) == 6


async def test_empty_fetches_reset_the_time_of_retries() -> None:
    scene = Scene(Broker(), retry_s_max=150.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    scene.broker.at("fetch", *[nothing, nothing, fail_later] * 6)
    async with scene.run():
        await until(lambda: len(scene.telemetry.of("commit_failed")) == 6)
        await until(lambda: scene.lane.phase == "running")


async def test_configuration_error_ends_the_lane() -> None:
    scene = Scene(Broker(make_records()))
    scene.broker.at("commit", fails(ConfigurationError("not authorised")))
    with pytest.raises(ConfigurationError, match="not authorised"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert scene.broker.last_call() == "close"
    assert (scene.lane.phase, list(scene.store.staged()), scene.partition.commits) == ("closed", [], [])


async def test_fenced_lane_publishes_nothing_more() -> None:
    scene = Scene(Broker(make_records()), **COMMIT_PER_RECORD)
    other = FakePublisher(scene.broker, 0)
    scene.broker.at("commit", nothing, nothing, other.open)
    async with scene.run():
        await until(lambda: scene.lane.phase == "fenced")
        await until(lambda: scene.broker.last_call() != "commit 13")
        calls, commits = list(scene.broker.calls), list(scene.partition.commits)
        scene.broker.clock.now_s += scene.settings.session_timeout_ms / 1_000 - 0.1
        await turns()
        assert scene.lane.phase == "fenced"
        assert scene.broker.calls == calls
        assert [effects.next_offset for effects in scene.partition.commits] == [11, 12]
        assert scene.partition.commits == commits
        ((_, error),) = scene.telemetry.of("commit_failed")
        assert isinstance(error, FencedError)
    assert scene.partition.commits == commits
    assert list(scene.store.staged()) == []
    assert set(dict(scene.store.items())) == {"c1", "c2"}


async def test_fenced_lane_reopens_after_the_session_timeout() -> None:
    """A lane that the group has not revoked by then is still the owner."""
    scene = Scene(Broker(make_records()), **COMMIT_PER_RECORD)
    scene.broker.at("commit", FakePublisher(scene.broker, 0).open)
    async with scene.run():
        await until(lambda: scene.lane.phase == "fenced")
        await turns(5)
        scene.broker.clock.now_s += scene.settings.session_timeout_ms / 1_000
        await until(scene.reaches(18))
    whole = await Scene(Broker(make_records())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


async def test_drain_commits_staged_records() -> None:
    scene = Scene(Broker(make_records()), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    async with scene.run():
        await until(lambda: scene.broker.last_call() == "fetch 18")
        await turns()
        assert scene.partition.commits == []
    assert [effects.next_offset for effects in scene.partition.commits] == [18]
    assert first_states(scene.partition.states()) == {"c1": "disconnected", "c2": "connected"}
    assert list(scene.store.staged()) == []
    assert scene.broker.calls[-3:] == ["commit 18", "answer", "close"]


async def test_drain_with_nothing_staged_commits_nothing() -> None:
    scene = Scene(Broker())
    scene.broker.fetch_waits = True
    async with scene.run():
        await until(lambda: "fetch 0" in scene.broker.calls)
    assert scene.partition.commits == []


async def test_drain_within_a_batch_leaves_the_rest_to_the_next_owner() -> None:
    scene = Scene(Broker(make_records()), commit_interval_ms=FOREVER_MS, slice_ms_max=1e-6)

    async def stop() -> None:
        asyncio.get_running_loop().call_later(0, scene.lane.stop)

    scene.broker.at("fetch", stop)
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    (effects,) = scene.partition.commits
    assert 10 < effects.next_offset < 18
    await Scene(scene.broker).consume(18)
    whole = await Scene(Broker(make_records())).consume(18)
    assert scene.partition.transitions == whole.partition.transitions


@pytest.mark.parametrize(
    "call_name", ["member", "open", "committed", "seek", "read", "chunk", "fetch", "commit", "answer"]
)
async def test_stop_during_any_call_closes_the_lane_in_order(call_name: str) -> None:
    scene = Scene(Broker(make_records()), **COMMIT_PER_RECORD)
    scene.partition.logs["state"] += [Output(b"gone", None)] * 4
    scene.partition.committed = Committed(10, "")

    async def stop() -> None:
        scene.lane.stop()

    scene.broker.at(call_name, stop)
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert scene.broker.last_call() == "close"
    assert list(scene.store.staged()) == []
    committed = scene.partition.committed
    assert (0 if committed is None else committed.next_offset) < 18
    await Scene(scene.broker).consume(18)
    whole = await Scene(Broker(make_records())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


async def test_stop_during_a_restore_interrupts_it() -> None:
    broker = Broker(make_records())
    await Scene(broker, **COMMIT_PER_RECORD).consume(18)
    scene = Scene(broker)

    async def stop() -> None:
        scene.lane.stop()

    broker.at("chunk", stop)
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert (scene.lane.phase, broker.last_call(), scene.telemetry.of("restored")) == ("closed", "close", [])
    assert scene.store.log_offset < len(scene.partition.logs["state"])


async def test_lane_stopped_before_it_runs_makes_no_call() -> None:
    scene = Scene(Broker(make_records()))
    scene.lane.stop()
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert (scene.broker.calls, scene.lane.is_stopping, scene.lane.phase) == ([], True, "closed")


async def test_cancelled_lane_commits_nothing_and_closes_its_producer() -> None:
    scene = Scene(Broker(make_records()), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    task = asyncio.create_task(scene.lane.run())
    await until(lambda: scene.broker.last_call() == "fetch 18")
    await turns(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (scene.partition.commits, scene.broker.calls[-1]) == ([], "close")
    assert list(scene.store.staged()) == []


async def test_stream_time_survives_in_the_offset_metadata() -> None:
    retention_s = settings_of().retention_ended_s
    first = [call(hour, "connected", hour * HOUR_S) for hour in range(retention_s // HOUR_S + 2)]
    broker = Broker(first)
    await Scene(broker).consume(len(first))
    stream_s = (len(first) - 1) * HOUR_S
    broker.partitions[0].input.extend(
        [
            call(len(first), "connected", stream_s - retention_s, "at-the-limit"),
            call(len(first) + 1, "connected", stream_s - retention_s - 0.001, "late"),
        ]
    )
    second = await Scene(broker).consume(len(first) + 2)
    assert set(second.partition.states()) == {b"c1", b"at-the-limit"}
    assert [(headers["cc-reason"], headers["cc-source-offset"]) for headers in second.dead_letter_headers()] == [
        ("late", str(len(first) + 1))
    ]
    metadata = f"stream-ms={BASE_MS + stream_s * 1_000} conversations=2 "
    metadata += "state-offset=3 transitions-offset=3 dead-letters-offset=1"
    assert second.partition.committed == Committed(len(first) + 2, metadata)


@pytest.mark.parametrize(
    ("metadata", "stream_s"),
    [
        (f"stream-ms={BASE_MS + 5_000}", 5),
        (f"stream-ms={BASE_MS - 5_000}", 1),
        (f"written-by-another={BASE_MS + 5_000}", 1),
    ],
)
async def test_foreign_offset_metadata_holds_no_stream_time(metadata: str, stream_s: int) -> None:
    broker = Broker([call(0, "alerting", 1)])
    broker.partitions[0].committed = Committed(0, metadata)
    scene = await Scene(broker).consume(1)
    metadata = f"stream-ms={BASE_MS + stream_s * 1_000} conversations=1 state-offset=1"
    assert scene.partition.committed == Committed(1, f"{metadata} transitions-offset=1 dead-letters-offset=0")


async def test_commit_without_states_keeps_the_last_state_offset() -> None:
    scene = await Scene(Broker([rubbish(0), heartbeat(1)])).consume(2)
    assert scene.partition.committed == Committed(
        2, "conversations=0 state-offset=0 transitions-offset=0 dead-letters-offset=1"
    )
    scene.partition.input.append(call(2, "alerting", 1))
    await Scene(scene.broker).consume(3)
    scene.partition.input.append(heartbeat(3))
    await Scene(scene.broker).consume(4)
    metadata = f"stream-ms={BASE_MS + 1_000} conversations=1 state-offset=1 transitions-offset=2 dead-letters-offset=2"
    assert scene.partition.committed == Committed(4, metadata)


async def test_expired_conversation_gets_a_tombstone_and_is_counted() -> None:
    retention_s = settings_of().retention_ended_s
    records = [call(0, "disconnected", 0, "old"), call(1, "alerting", 0, "live")]
    records += [call(offset, "connected", (offset - 1) * HOUR_S) for offset in range(2, retention_s // HOUR_S + 3)]
    scene = await Scene(Broker(records), **COMMIT_PER_RECORD).consume(len(records))
    assert set(scene.partition.states()) == {b"live", b"c1"}
    assert Output(b"old", None) in scene.partition.read("state")
    assert scene.store.lookup("old") is None
    assert sum(stats.evicted for _, stats, *_ in scene.telemetry.of("committed")) == 1


@pytest.mark.parametrize("changed", [{"dead_letters_consecutive_max": 3}, {"dead_letters_window_records": 3}])
async def test_dead_letters_block_the_lane_at_the_limit(changed: dict[str, int]) -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), **changed)
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked")
        await turns()
        assert [effects.next_offset for effects in scene.partition.commits] == [3]
        assert len(scene.partition.dead_letters) == 3
        assert sum(name.startswith("fetch") for name in scene.broker.calls) == 1
        ((partition, cause),) = scene.telemetry.of("breaker_opened")
        assert (partition, cause) == (0, scene.lane.engine.open_reason)
        assert f"CC_{next(iter(changed)).upper().replace('WINDOW_RECORDS', 'RATIO_MAX')}" in cause
        before_s = scene.lane.last_progress_s
        scene.broker.clock.now_s += 1.0
        await until(lambda: scene.lane.last_progress_s > before_s)
    assert [effects.next_offset for effects in scene.partition.commits] == [3]


async def test_dead_letters_below_the_limit_do_not_block() -> None:
    records = [rubbish(offset) if offset % 3 else call(offset, "connected", offset) for offset in range(30)]
    scene = await Scene(Broker(records), dead_letters_consecutive_max=3, dead_letters_ratio_max=0.7).consume(30)
    assert scene.telemetry.of("breaker_opened") == []
    assert len(scene.partition.dead_letters) == 20


async def test_blocked_lane_retries_its_commit_and_stays_blocked() -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=3)
    scene.broker.at("commit", UNREACHABLE)
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked")
    assert 0 < len(scene.partition.dead_letters) <= 3
    assert len(scene.partition.dead_letters) == scene.partition.commits[-1].next_offset


async def test_failed_commit_does_not_count_its_dead_letters_twice() -> None:
    scene = Scene(Broker([rubbish(0), rubbish(1)]), dead_letters_consecutive_max=3)
    scene.broker.at("commit", UNREACHABLE)
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked" or scene.reaches(2)())
        assert scene.lane.engine.open_reason == ""


async def test_committed_dead_letters_count_after_a_failed_commit() -> None:
    scene = Scene(
        Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=4, **COMMIT_PER_RECORD
    )
    scene.broker.at("commit", nothing, nothing, UNREACHABLE)
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked")
    assert len(scene.partition.dead_letters) == 4


def too_large(offset: int) -> UnreadableError:
    return UnreadableError("the batch is too large", Record("in", 0, offset, 0, None, None, (), "a batch of 1 GB"))


async def test_batch_that_is_too_large_stops_the_lane() -> None:
    """What came before it is committed, and the lane does not try again."""
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]), commit_interval_ms=FOREVER_MS)
    error = too_large(5)
    scene.broker.at("fetch", nothing, fails(error))
    async with scene.run():
        await until(lambda: scene.lane.phase == "blocked")
        await turns()
        assert scene.lane.problem == "the batch is too large"
        assert scene.partition.committed is not None
        assert scene.partition.committed.next_offset == 2
        assert scene.telemetry.of("unreadable") == [(0, error)]
        assert sum(name.startswith("fetch") for name in scene.broker.calls) == 2
        before_s = scene.lane.last_progress_s
        scene.broker.clock.now_s += 1.0
        await until(lambda: scene.lane.last_progress_s > before_s)


async def test_batch_of_the_states_that_is_too_large_stops_the_lane() -> None:
    scene = Scene(Broker([call(0, "alerting", 1)]))
    scene.broker.at("read", fails(too_large(0)))
    async with scene.run():
        await until(lambda: bool(scene.telemetry.of("unreadable")))
        await turns()
        assert (scene.lane.phase, scene.lane.problem) == ("failing", "the batch is too large")
        assert scene.broker.calls.count("read 0") == 1
    assert scene.partition.committed is None


async def test_batch_that_is_passed_over_gets_one_dead_letter() -> None:
    stand_in = too_large(41).stand_in
    scene = await Scene(Broker([stand_in])).consume(42)
    (headers,) = scene.dead_letter_headers()
    expected = {"cc-reason": "too_large", "cc-detail": "a batch of 1 GB", "cc-payload": "not read"}
    assert expected.items() <= headers.items()
    assert headers["cc-source-offset"] == "41"
    assert [(letter.key, letter.value) for letter in scene.partition.dead_letters] == [(None, b"")]
    assert scene.telemetry.of("passed_over") == [(0, stand_in)]


async def test_time_of_a_lane_is_reported_by_activity() -> None:
    scene = Scene(Broker(make_records()), commit_interval_ms=700)

    async def take_2_s() -> None:
        scene.broker.clock.now_s += 2.0

    async def take_4_s() -> None:
        scene.broker.clock.now_s += 4.0

    scene.broker.at("open", take_2_s)
    scene.broker.at("commit", take_4_s)
    await scene.consume(18)
    spent = dict.fromkeys(ACTIVITIES, 0.0)
    for activity, seconds in scene.telemetry.of("spent"):
        spent[activity] += seconds
    assert spent == {
        "fetch_wait": pytest.approx(0.7, abs=0.01),
        "process": pytest.approx(0.0, abs=1.0),
        "commit": 4.0,
        "restore": 2.0,
    }
    assert spent["process"] > 0
    ((_, _, restore_s),) = scene.telemetry.of("restored")
    ((_, _, commit_s, _),) = scene.telemetry.of("committed")
    assert (restore_s, commit_s) == (2.0, 4.0)


async def test_open_lane_is_reading() -> None:
    scene = Scene(Broker([call(0, "alerting", 1)]), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    reading: list[bool] = []

    async def note() -> None:
        reading.append(scene.lane.is_reading)

    for name in ("open", "fetch"):
        scene.broker.at(name, note, note)
    async with scene.run():
        await until(lambda: len(reading) == 3)
        assert repr(scene.lane) == "<Lane 0 running, 0 conversations, next 1>"
    assert reading == [False, True, True]


async def test_position_past_markers_is_committed() -> None:
    """An idle lane commits it after a while, so that retention can delete the markers without a reset."""
    scene = Scene(Broker(make_records()))
    async with scene.run():
        await until(scene.reaches(18))
        scene.partition.markers_end = 21
        await turns()
        assert "commit 21" not in scene.broker.calls
        scene.broker.clock.now_s += lane_module.MARKERS_S
        await until(scene.reaches(21))
    assert scene.broker.calls.count("commit 21") == 1
    assert [commit.states for commit in scene.partition.commits if commit.next_offset == 21] == [[]]


async def test_failing_lane_is_retried_while_another_moves() -> None:
    """The partitions that can be served continue, however long this one fails."""
    scene = Scene(Broker(make_records()), retry_s_max=150.0)
    moving = [True] * 6 + [False]
    scene.lane._others_move = lambda: moving.pop(0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise RetriableError("no answer")

    scene.broker.at("open", *[fail_later] * 20)
    with pytest.raises(ConfigurationError, match="could not be served"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert moving == []


async def test_transitions_are_published_as_json_of_the_schema() -> None:
    scene = await Scene(Broker([call(0, "connected", 5)])).consume(1)
    (output,) = scene.partition.transitions
    transition = json.loads(output.value or b"")
    assert (output.key, transition["media"], transition["from"], transition["to"]) == (b"c1", "call", None, "connected")
    assert transition["source"] == {"topic": "conversation-updates", "partition": 0, "offset": 0}
    assert msgspec.json.decode(scene.partition.states()[b"c1"])["source"] == transition["source"]


async def test_lost_conversations_end_the_lane_with_a_remedy() -> None:
    broker = Broker(make_records())
    await Scene(broker).consume(18)
    broker.partitions[0].logs["state"].clear()
    with pytest.raises(
        ConfigurationError,
        match=r"holds 0 conversations up to offset 0 and ends at 0, but .* with 2 up to 2:.*--reset-offsets",
    ):
        await asyncio.wait_for(Scene(broker).lane.run(), WAIT_S)


async def test_lost_state_of_a_conversation_ends_the_lane_too() -> None:
    broker = Broker([call(0, "alerting", 1)])
    await Scene(broker).consume(1)
    broker.partitions[0].input.append(call(1, "connected", 2))
    await Scene(broker).consume(2)
    del broker.partitions[0].logs["state"][-2:]
    with pytest.raises(
        ConfigurationError,
        match=r"holds 1 conversations up to offset 1 and ends at 2, but .* with 1 up to 3:.*--reset-offsets",
    ):
        await asyncio.wait_for(Scene(broker).lane.run(), WAIT_S)


async def test_state_topic_that_ends_early_is_read_again() -> None:
    """A leader that was suspended and replaced returns an old end until it learns of the new leader."""
    broker = Broker(make_records())
    log = (await Scene(broker).consume(18)).partition.logs["state"]
    hidden: list[Output | None] = []

    async def hide() -> None:
        hidden.extend(log)
        log.clear()

    async def show() -> None:
        log.extend(hidden)

    broker.at("committed", hide, show)
    broker.partitions[0].input.append(call(18, "disconnected", 19, "c2"))
    scene = await Scene(broker).consume(19)
    assert len(scene.telemetry.of("commit_failed")) == 1
    assert first_states(scene.partition.states()) == {"c1": "disconnected", "c2": "disconnected"}


@pytest.mark.parametrize("same_lane", [True, False])
@pytest.mark.parametrize("committed", [1, 2, 3])
async def test_offset_older_than_the_state_is_read_again(*, same_lane: bool, committed: int) -> None:
    """A coordinator that was killed together with its replicas returns an older offset.

    A lane that survived that remembers a newer one. Any other lane sees that the state topic goes on behind the offset.
    """
    records = make_records()
    broker = Broker(records[:committed])
    begun = records[committed].offset
    scene = await Scene(broker).consume(begun)
    partition = scene.partition
    older = partition.committed
    partition.input.extend(records[committed:])
    newest: list[Committed | None] = []

    async def return_older() -> None:
        newest.append(partition.committed)
        partition.committed = older

    async def return_newest() -> None:
        partition.committed = newest[0]

    if same_lane:
        scene = Scene(broker)
        async with scene.run():
            await until(scene.reaches(18))
            broker.at("committed", return_older, return_newest)
            broker.at("fetch", fails(RetriableError("away")))
            await until(lambda: bool(newest) and scene.reaches(18)())
    else:
        await Scene(broker).consume(18)
        broker.at("committed", return_older, return_newest)
        scene = await Scene(broker).consume(18)
    assert len(scene.telemetry.of("commit_failed")) == 1 + same_lane
    assert [effects.next_offset for effects in partition.commits] == [begun, 18]
    assert len(partition.dead_letters) == 1


async def test_committed_offset_out_of_range_is_reset() -> None:
    """The lane reports the reset and starts at the beginning of the topic."""
    broker = Broker([call(5, "alerting", 1)])
    broker.partitions[0].committed = Committed(2, "")
    scene = await Scene(broker).consume(6)
    assert scene.telemetry.of("offset_reset") == [(0, 2, 5)]


async def test_at_least_once_the_state_may_be_ahead_of_the_offset() -> None:
    broker = Broker(make_records())
    await Scene(broker).consume(18)
    partition = broker.partitions[0]
    assert partition.committed is not None
    partition.committed = Committed(17, partition.committed.metadata.replace("=2", "=1"))
    scene = await Scene(broker, delivery="at_least_once").consume(18)
    assert scene.partition.committed is not None
    assert scene.partition.committed.metadata == f"stream-ms={BASE_MS + 9_000}"


async def test_hanging_transaction_is_settled_before_the_restore() -> None:
    """The lane commits nothing before that: the next marker would settle the transaction too."""
    broker = Broker(make_records()[:4])
    scene = Scene(broker)
    partition = scene.partition
    async with scene.run():
        await until(scene.reaches(14))
        partition.undecided = Settlement(hanging={"transitions": 1})
        partition.decide = lambda _: setattr(partition, "undecided", Settlement())
        broker.calls.clear()
        partition.input.extend(make_records()[4:])
        await until(scene.reaches(18))
    assert scene.telemetry.of("transaction_repaired") == [(0, "commit", ["conversation-transitions"])]
    opened = broker.calls.index("open")
    assert broker.calls[opened : opened + 6] == ["open", "committed", "settle commit", "committed", "seek 14", "read 2"]
    whole = await Scene(Broker(make_records())).consume(18)
    assert partition.states() == whole.partition.states()


async def test_idle_lane_settles_a_hanging_transaction() -> None:
    """Readers wait for its last commit, and it has no further one to make."""
    scene = Scene(Broker(make_records()))
    async with scene.run():
        await until(scene.reaches(18))
        scene.partition.undecided = Settlement(hanging={"state": 0})
        scene.partition.decide = lambda _: setattr(scene.partition, "undecided", Settlement())
        await until(lambda: bool(scene.telemetry.of("transaction_repaired")))
        await until(scene.reaches(18))


async def test_failed_producer_is_closed_before_the_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might still send the batch of the failed commit."""
    scene = Scene(Broker(make_records()))
    closed_at: list[str] = []

    def note(*_: object) -> None:
        closed_at.append(scene.broker.last_call())

    monkeypatch.setattr(scene.telemetry, "commit_failed", note)
    scene.broker.at("commit", UNREACHABLE, fails(FencedError("taken over")))
    async with scene.run():
        await until(lambda: len(closed_at) == 2)
    assert closed_at == ["close", "close"]


async def test_only_committed_effects_are_passed_on() -> None:
    """The effects of a failed commit are passed on once, when its retry succeeds."""
    scene = Scene(Broker(make_records()), commit_records_max=4, fetch_records_max=4)
    scene.broker.at("commit", UNREACHABLE, nothing, UNREACHABLE)
    await scene.consume(18)
    assert [effects.next_offset for effects in scene.observed] == [14, 18]
    assert [list_effects(effects) for effects in scene.observed] == scene.partition.commits


async def test_recreated_topic_is_read_from_its_beginning() -> None:
    """The committed offset belongs to the old topic, even if the new one holds as many records."""
    broker = Broker(make_records())
    broker.topic_id = "a1"
    await Scene(broker).consume(18)
    broker.topic_id = "b2"
    scene = Scene(broker)
    async with scene.run():
        await until(lambda: "fetch 10" in broker.calls[broker.calls.index("close") :])
        await until(scene.reaches(18))
    assert scene.telemetry.of("offset_reset") == [(0, 18, 10)]


@pytest.mark.parametrize(("before", "after"), [("a1", "a1"), ("", "b2"), ("a1", "")])
async def test_lane_continues_on_the_same_topic(before: str, after: str) -> None:
    """It does so too where the broker, or the version that committed, did not know the topic's id."""
    broker = Broker(make_records())
    broker.topic_id = before
    await Scene(broker).consume(18)
    broker.topic_id = after
    scene = Scene(broker)
    async with scene.run():
        await until(lambda: scene.lane.phase == "running")
    assert scene.telemetry.of("offset_reset") == []


async def test_recreated_topic_reopens_a_running_lane() -> None:
    broker = Broker(make_records())
    broker.topic_id = "a1"
    scene = Scene(broker)
    async with scene.run():
        await until(scene.reaches(18))
        scene.lane.note_topic_id("a1")
        scene.lane.note_topic_id("")
        await turns()
        assert scene.telemetry.of("commit_failed") == []
        broker.topic_id = "b2"
        scene.lane.note_topic_id("b2")
        await until(lambda: bool(scene.telemetry.of("offset_reset")))
        await until(scene.reaches(18))
    ((_, error),) = scene.telemetry.of("commit_failed")
    assert "created again" in str(error)


async def test_offsets_deleted_with_the_topic_need_an_operator() -> None:
    """The state remains; only an operator can decide whether the new topic is to be read on top of it."""
    broker = Broker(make_records())
    broker.topic_id = "a1"
    scene = Scene(broker)
    async with scene.run():
        await until(scene.reaches(18))
        broker.topic_id, scene.partition.committed = "b2", None
        scene.lane.note_topic_id("b2")
        await until(lambda: len(scene.telemetry.of("commit_failed")) > 2)
    failures = [str(error) for _, error in scene.telemetry.of("commit_failed")]
    assert "created again" in failures[0]
    assert "the group has no committed offset" in failures[1]
    assert "kafka-consumer-groups" in failures[1]
