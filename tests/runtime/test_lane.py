"""One lane against a broker in memory: what it does in which order, and what becomes visible when something fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from consumer.core.record import Record
from consumer.runtime import lane as lane_module
from consumer.runtime.commit_policy import CommitPolicy
from consumer.runtime.lane import Lane
from consumer.runtime.ports import ACTIVITIES, Committed, Effects, Fenced, Misfit, Unreachable
from consumer.runtime.settings import Settings
from consumer.runtime.settlement import Settlement
from consumer.runtime.state_store import StateStore
from tests.fakes import (
    UNREACHABLE,
    WAIT_S,
    Broker,
    FakePublisher,
    FakeTelemetry,
    fails,
    nothing,
    turns,
    until,
    world_of,
)
from tests.runtime.scenes import FOREVER_MS, HOUR_S, call, heartbeat, rubbish, settings_of, shown_states
from tests.strategies import BASE_MS

EACH = {"commit_records_max": 1, "slice_ms_max": 1e-6}
"""Every record is a commit."""


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.001)
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 0.0)


class Scene:
    """A lane of partition 0, what it talks to, and what it told."""

    def __init__(self, broker: Broker, store: StateStore | None = None, /, **changed: Any) -> None:
        self.settings: Settings = settings_of(**changed)
        self.broker = broker
        self.partition = broker.partitions[0]
        self.telemetry = FakeTelemetry()
        self.observed: list[Effects] = []
        """What the lane passed on as committed."""
        self.store = store or StateStore(self.settings.rules())
        self.lane = Lane(
            0,
            self.store,
            self.settings,
            lambda: CommitPolicy.of(self.settings, 1),
            world_of(broker, self.telemetry, BASE_MS, self.observed.append),
        )

    def operations(self) -> list[tuple[str, str, str]]:
        """(conversation, operation, state) of the transitions seen."""
        found = [json.loads(letter.value or b"") for letter in self.partition.transitions]
        return [(each["conversationId"], each["op"], each["to"]) for each in found]

    def dead(self) -> list[dict[str, str]]:
        """The headers of the dead letters seen."""
        return [{name: text.decode() for name, text in each.headers} for each in self.partition.dead_letters]

    def went_to(self, offset: int) -> Callable[[], bool]:
        """Whether the lane has committed up to an offset and asks for more."""
        return lambda: (
            self.partition.committed is not None
            and self.partition.committed.next_offset == offset
            and self.broker.last_call() == f"fetch {offset}"
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(self.lane.run())
        try:
            yield task
            self.lane.stop()
            await asyncio.wait_for(asyncio.shield(task), WAIT_S)
            assert self.lane.phase == "closed"
        finally:
            task.cancel()

    async def consume(self, offset: int) -> "Scene":
        """Run the lane until it has committed up to an offset, and end it."""
        async with self.running():
            await until(self.went_to(offset))
        return self


def story() -> list[Record]:
    """Two conversations, disorder, a repetition, a dead letter, something ignored."""
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


async def test_a_lane_fences_before_it_reads_the_offset_and_restores_before_it_consumes() -> None:
    broker = Broker([call(3, "alerting", 1), call(4, "connected", 2)])
    broker.partitions[0].committed = Committed(4, "")
    broker.partitions[0].state_log = [(b"gone", None)] * 3
    scene = Scene(broker)
    phases: list[str] = []

    async def note() -> None:
        phases.append(scene.lane.phase)

    for each in ("member", "open", "committed", "seek", "read", "chunk", "fetch"):
        broker.at(each, note)
    await scene.consume(5)
    assert broker.calls[:7] == ["member", "open", "committed", "seek 4", "read 0", "chunk", "fetch 4"]
    assert phases == ["opening"] * 6 + ["running"]
    assert scene.telemetry.of("restoring") == [(0, 1), (0, 0)]
    assert [effects.next_offset for effects in scene.partition.commits] == [5]
    assert scene.operations() == [("c1", "assert", "connected")]


async def test_without_a_committed_offset_a_lane_begins_at_the_beginning() -> None:
    scene = await Scene(Broker(story())).consume(18)
    assert scene.broker.calls[:6] == ["member", "open", "committed", "seek None", "read 0", "fetch 10"]


@pytest.mark.parametrize("call_name", ["member", "open", "committed", "seek", "read", "chunk"])
async def test_the_gate_stays_shut_while_opening_takes_its_time(call_name: str) -> None:
    scene = Scene(Broker(story()))
    scene.partition.state_log = [(b"gone", None)] * 4
    scene.partition.committed = Committed(10, "")
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    scene.broker.at(call_name, wait)
    async with scene.running():
        await until(lambda: scene.broker.last_call().startswith(call_name))
        await turns()
        assert scene.broker.last_call().startswith(call_name)
        assert scene.lane.phase == "opening"
        gate.set()
        await until(scene.went_to(18))


async def test_a_lane_that_opens_goes_on_from_the_states_of_the_last_owner() -> None:
    broker = Broker(story()[:4])
    await Scene(broker).consume(14)
    broker.partitions[0].input.extend(story()[4:])
    second = await Scene(broker).consume(18)
    alone = await Scene(Broker(story())).consume(18)
    assert second.partition.states() == alone.partition.states()
    assert second.partition.transitions == alone.partition.transitions
    assert second.telemetry.of("offset_reset") == alone.telemetry.of("offset_reset") == []
    assert dict(second.store.items()) == {key.decode(): state for key, state in second.partition.states().items()}


async def test_a_long_restore_is_progress() -> None:
    scene = Scene(Broker())
    scene.partition.state_log = [(b"gone", None)] * 6
    scene.partition.committed = Committed(0, "")
    seen: list[float] = []

    async def take_30_s() -> None:
        seen.append(scene.broker.clock.now_s - scene.lane.last_progress_s)
        scene.broker.clock.now_s += 30.0

    scene.broker.at("chunk", take_30_s, take_30_s)
    async with scene.running():
        await until(lambda: scene.lane.phase == "running")
    assert seen == [0.0, 0.0]


async def test_a_lane_that_waits_to_try_again_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_BACKOFF_S", 5.0)
    scene = Scene(Broker(story()))
    scene.broker.at("commit", UNREACHABLE)
    async with scene.running():
        await until(lambda: scene.lane.phase == "failing")
        scene.broker.clock.now_s += 4.9
        await turns()
        assert (scene.lane.phase, scene.lane.is_open, scene.lane.is_reading) == ("failing", False, False)
        scene.broker.clock.now_s += 0.1
        await until(scene.went_to(18))


async def test_a_store_that_is_kept_reads_only_what_is_new() -> None:
    broker = Broker(story()[:4])
    first = await Scene(broker).consume(14)
    broker.partitions[0].input.extend(story()[4:])
    await Scene(broker).consume(18)
    written = len(broker.partitions[0].state_log)
    broker.calls.clear()
    third = Scene(broker, first.store)
    async with third.running():
        await until(lambda: third.lane.phase == "running")
    assert f"read {first.store.log_offset}" not in broker.calls
    assert "read 2" in broker.calls
    assert third.store.log_offset == written
    assert dict(third.store.items()) == {key.decode(): state for key, state in third.partition.states().items()}


async def test_a_state_topic_made_anew_under_a_kept_store_is_a_misfit() -> None:
    scene = Scene(Broker())
    scene.store.log_offset = 1
    with pytest.raises(Misfit, match="truncated or made anew"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert "fetch" not in " ".join(scene.broker.calls)
    assert scene.broker.calls.count("read 1") == 2
    assert scene.lane.phase == "closed"


async def test_a_commit_holds_the_effects_of_its_records_and_the_offset_after_them() -> None:
    scene = await Scene(Broker(story())).consume(18)
    (effects,) = scene.partition.commits
    metadata = f"stream-ms={BASE_MS + 9_000} conversations=2 state-offset=2 transitions-offset=7 dead-letters-offset=1"
    assert scene.partition.committed == Committed(18, metadata)
    assert sorted(letter.key or b"" for letter in effects.states) == [b"c1", b"c2"]
    assert shown_states(scene.partition.states()) == {"c1": "disconnected", "c2": "connected"}
    assert scene.operations() == [
        ("c1", "assert", "alerting"),
        ("c2", "assert", "alerting"),
        ("c1", "assert", "disconnected"),
        ("c1", "retract", "disconnected"),
        ("c1", "assert", "connected"),
        ("c1", "assert", "disconnected"),
        ("c2", "assert", "connected"),
    ]
    assert {letter.key for letter in effects.transitions} == {b"c1", b"c2"}
    (told,) = scene.telemetry.of("committed")
    assert told[0] == 0
    assert told[1].records == {
        ("applied", ""): 5,
        ("unchanged", ""): 1,
        ("ignored", "heartbeat"): 1,
        ("dead_lettered", "bad_json"): 1,
    }
    assert told[3] == 0


async def test_dead_letters_are_part_of_the_same_transaction() -> None:
    scene = await Scene(Broker(story())).consume(18)
    (effects,) = scene.partition.commits
    (letter,) = effects.dead_letters
    assert (letter.key, letter.value) == (b"rubbish-13", b'{"id":')
    assert scene.dead()[0]["cc-reason"] == "bad_json"
    assert scene.dead()[0]["cc-source-offset"] == "13"
    assert scene.dead()[0]["cc-service-version"] == "1.2.3"


@pytest.mark.parametrize("payload", ["keep", "drop"])
async def test_the_payload_of_a_dead_letter_is_kept_as_set(payload: str) -> None:
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
async def test_commits_are_cut_by_records_and_by_bytes(changed: dict[str, int], offsets: list[int]) -> None:
    scene = await Scene(Broker(story()), slice_ms_max=1e-6, **changed).consume(18)
    assert [effects.next_offset for effects in scene.partition.commits] == offsets
    whole = await Scene(Broker(story())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


@pytest.mark.parametrize(("most", "offsets"), [(8, [10, 18]), (7, [10, 17, 18]), (3, [10, 13, 16, 18])])
async def test_a_fetch_takes_so_many_records_at_most(most: int, offsets: list[int]) -> None:
    scene = await Scene(Broker(story()), fetch_records_max=most).consume(18)
    asked = [int(each.split(" ")[1]) for each in scene.broker.calls if each.startswith("fetch ")]
    assert sorted(set(asked)) == offsets


@pytest.mark.parametrize("left", [0, 1])
async def test_a_state_topic_made_anew_under_a_running_lane_ends_it(left: int) -> None:
    scene = Scene(Broker(story()), **EACH)

    async def make_anew() -> None:
        del scene.partition.state_log[left:]

    scene.broker.at("commit", nothing, nothing, make_anew)
    with pytest.raises(Misfit, match=rf"\(CC_STATE_TOPIC\) ends at {left + 1}, .* made anew"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)


async def test_a_commit_is_due_by_time_since_the_first_effect() -> None:
    scene = Scene(Broker(story()), commit_interval_ms=700)
    started_s = scene.broker.clock.now_s
    await scene.consume(18)
    assert scene.broker.clock.now_s == pytest.approx(started_s + 0.7, abs=0.01)


@pytest.mark.parametrize(("seconds", "offsets"), [(0.8, [18]), (1.1, [16, 18])])
async def test_while_fetches_are_full_a_lane_takes_up_to_a_second_between_commits(
    seconds: float, offsets: list[int]
) -> None:
    scene = Scene(Broker(story()), commit_interval_ms=700, fetch_records_max=3, slice_ms_max=60_000)

    async def passes() -> None:
        scene.broker.clock.now_s += seconds

    scene.broker.at("fetch", passes, passes, passes)
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


@pytest.mark.parametrize("changed", [{}, {"commit_records_max": 3, "slice_ms_max": 1e-6}, EACH])
@pytest.mark.parametrize("failing", FAILURES)
async def test_whatever_fails_is_repeated_with_the_same_result(failing: str, changed: dict[str, Any]) -> None:
    whole = await Scene(Broker(story()), **changed).consume(18)
    scene = Scene(Broker(story()), **changed)
    for call_name, reactions in FAILURES[failing].items():
        scene.broker.at(call_name, *reactions)
    await scene.consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions
    assert scene.partition.dead_letters == whole.partition.dead_letters
    assert scene.partition.committed == whole.partition.committed
    assert dict(scene.store.items()) == dict(whole.store.items())
    assert scene.store.log_offset == len(scene.partition.state_log)


@pytest.mark.parametrize("failing", ["commit", "answer"])
async def test_a_failed_commit_drops_the_overlay_and_opens_anew_with_another_producer(failing: str) -> None:
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]), **EACH)
    seen: list[tuple[str | None, bool, int]] = []

    async def look() -> None:
        known = scene.store.lookup("c1")
        shown = None if known is None else shown_states({b"c1": known.published})["c1"]
        seen.append((shown, bool(list(scene.store.staged())), scene.partition.epoch))

    scene.broker.at("open", nothing, look)
    scene.broker.at(failing, nothing, UNREACHABLE)
    await scene.consume(2)
    assert seen == [("alerting", False, 1)]
    assert scene.partition.epoch == 2
    failed = next(index for index, each in enumerate(scene.broker.calls) if each == "close")
    resumed_at = 1 if failing == "commit" else 2
    assert scene.broker.calls[failed : failed + 6] == [
        "close", "member", "open", "committed", f"seek {resumed_at}", "read 1",
    ]  # fmt: skip
    assert [type(each[1]) for each in scene.telemetry.of("commit_failed")] == [Unreachable]
    assert scene.operations() == [("c1", "assert", "alerting"), ("c1", "assert", "connected")]


async def test_a_worker_that_the_group_does_not_count_fences_nobody() -> None:
    """It hears of no revocation while it is cut off from the group, though not from what it writes to."""
    scene = Scene(Broker([call(0, "alerting", 1), call(1, "connected", 2)]), **EACH)
    epochs: list[int] = []

    async def given_up() -> None:
        epochs.append(scene.partition.epoch)
        await UNREACHABLE()

    async def taken_over() -> None:
        scene.partition.epoch = 7
        await UNREACHABLE()

    scene.broker.at("commit", nothing, taken_over)
    scene.broker.at("member", nothing, given_up, given_up, given_up)
    await scene.consume(2)
    assert epochs == [7, 7, 7]
    assert scene.partition.epoch == 8  # the group counts it again


async def test_a_record_is_counted_once_however_often_it_was_tried() -> None:
    scene = Scene(Broker(story()))
    scene.broker.at("commit", UNREACHABLE, UNREACHABLE)
    await scene.consume(18)
    assert [told[1].consumed for told in scene.telemetry.of("committed")] == [8]


async def test_a_record_is_counted_once_although_a_fetch_after_its_commit_failed() -> None:
    scene = Scene(Broker(story()), fetch_records_max=4, commit_records_max=4)
    scene.broker.at("fetch", nothing, UNREACHABLE)
    await scene.consume(18)
    assert [told[1].consumed for told in scene.telemetry.of("committed")] == [4, 4]
    assert len(scene.telemetry.of("commit_failed")) == 1


@pytest.mark.parametrize("changed", [{}, EACH])
async def test_a_commit_whose_answer_was_lost_is_counted_when_the_offset_tells_of_it(changed: dict[str, Any]) -> None:
    scene = Scene(Broker(story()), **changed)
    scene.broker.at("answer", UNREACHABLE)
    scene.broker.at("committed", nothing, UNREACHABLE)
    await scene.consume(18)
    assert sum(told[1].consumed for told in scene.telemetry.of("committed")) == 8
    assert all(0 <= told[2] < 100 for told in scene.telemetry.of("committed"))
    assert len(scene.telemetry.of("commit_failed")) == 2


async def test_a_commit_that_was_fenced_is_left_to_the_new_owner_to_count() -> None:
    scene = Scene(Broker(story()), session_timeout_ms=45_000)
    scene.broker.at("answer", fails(Fenced("taken over")))
    async with scene.running():
        await until(lambda: scene.lane.phase == "fenced")
        await turns(5)
        scene.broker.clock.now_s += 45.0
        await until(scene.went_to(18))
    assert scene.telemetry.of("committed") == []


async def test_the_breaker_counts_a_commit_whose_answer_was_lost() -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=3)
    scene.broker.at("answer", UNREACHABLE)
    async with scene.running():
        await until(lambda: scene.lane.phase == "blocked")
        await turns()
    assert len(scene.partition.dead_letters) == 3
    assert [told[1].consumed for told in scene.telemetry.of("committed")] == [3]


@pytest.mark.parametrize("call_name", ["open", "committed", "seek", "read", "commit"])
async def test_retrying_has_an_end(call_name: str) -> None:
    scene = Scene(Broker(story()), retry_s_max=350.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    scene.broker.at(call_name, *[fail_later] * 4)
    await scene.consume(18)
    other = Scene(Broker(story()), retry_s_max=350.0)

    async def fail_later_too() -> None:
        other.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    other.broker.at(call_name, *[fail_later_too] * 5)
    with pytest.raises(Misfit, match=r"partition 0 .* 350 s \(CC_RETRY_S_MAX\): no answer"):
        await asyncio.wait_for(other.lane.run(), WAIT_S)


async def test_retrying_begins_anew_after_a_commit() -> None:
    scene = Scene(Broker(story()), retry_s_max=150.0, **EACH)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    scene.broker.at("commit", *[fail_later, nothing] * 6)
    await scene.consume(18)
    assert len(scene.telemetry.of("commit_failed")) == 6


async def test_retrying_begins_anew_after_a_time_without_records() -> None:
    scene = Scene(Broker(), retry_s_max=150.0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    scene.broker.at("fetch", *[nothing, nothing, fail_later] * 6)
    async with scene.running():
        await until(lambda: len(scene.telemetry.of("commit_failed")) == 6)
        await until(lambda: scene.lane.phase == "running")


async def test_a_misfit_ends_the_lane() -> None:
    scene = Scene(Broker(story()))
    scene.broker.at("commit", fails(Misfit("not authorised")))
    with pytest.raises(Misfit, match="not authorised"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert scene.broker.last_call() == "close"
    assert (scene.lane.phase, list(scene.store.staged()), scene.partition.commits) == ("closed", [], [])


async def test_a_fenced_lane_publishes_nothing_more() -> None:
    scene = Scene(Broker(story()), **EACH)
    other = FakePublisher(scene.broker, 0)
    scene.broker.at("commit", nothing, nothing, other.open)
    async with scene.running():
        await until(lambda: scene.lane.phase == "fenced")
        await until(lambda: scene.broker.last_call() != "commit 13")
        calls, commits = list(scene.broker.calls), list(scene.partition.commits)
        scene.broker.clock.now_s += scene.settings.session_timeout_ms / 1_000 - 0.1
        await turns()
        assert scene.lane.phase == "fenced"
        assert scene.broker.calls == calls
        assert [each.next_offset for each in scene.partition.commits] == [11, 12]
        assert scene.partition.commits == commits
        (told,) = scene.telemetry.of("commit_failed")
        assert isinstance(told[1], Fenced)
    assert scene.partition.commits == commits
    assert list(scene.store.staged()) == []
    assert set(dict(scene.store.items())) == {"c1", "c2"}


async def test_a_fenced_lane_that_is_still_the_owner_after_the_session_timeout_opens_again() -> None:
    scene = Scene(Broker(story()), **EACH)
    scene.broker.at("commit", FakePublisher(scene.broker, 0).open)
    async with scene.running():
        await until(lambda: scene.lane.phase == "fenced")
        await turns(5)
        scene.broker.clock.now_s += scene.settings.session_timeout_ms / 1_000
        await until(scene.went_to(18))
    whole = await Scene(Broker(story())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


async def test_draining_commits_what_is_staged() -> None:
    scene = Scene(Broker(story()), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    async with scene.running():
        await until(lambda: scene.broker.last_call() == "fetch 18")
        await turns()
        assert scene.partition.commits == []
    assert [effects.next_offset for effects in scene.partition.commits] == [18]
    assert shown_states(scene.partition.states()) == {"c1": "disconnected", "c2": "connected"}
    assert list(scene.store.staged()) == []
    assert scene.broker.calls[-3:] == ["commit 18", "answer", "close"]


async def test_draining_with_nothing_staged_commits_nothing() -> None:
    scene = Scene(Broker())
    scene.broker.fetch_waits = True
    async with scene.running():
        await until(lambda: "fetch 0" in scene.broker.calls)
    assert scene.partition.commits == []


async def test_a_drain_in_the_middle_of_a_batch_leaves_the_rest_to_the_next_owner() -> None:
    scene = Scene(Broker(story()), commit_interval_ms=FOREVER_MS, slice_ms_max=1e-6)

    async def stop() -> None:
        asyncio.get_running_loop().call_later(0, scene.lane.stop)

    scene.broker.at("fetch", stop)
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    (effects,) = scene.partition.commits
    assert 10 < effects.next_offset < 18
    await Scene(scene.broker).consume(18)
    whole = await Scene(Broker(story())).consume(18)
    assert scene.partition.transitions == whole.partition.transitions


@pytest.mark.parametrize(
    "call_name", ["member", "open", "committed", "seek", "read", "chunk", "fetch", "commit", "answer"]
)
async def test_a_stop_at_any_moment_ends_the_lane_in_order(call_name: str) -> None:
    scene = Scene(Broker(story()), **EACH)
    scene.partition.state_log = [(b"gone", None)] * 4
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
    whole = await Scene(Broker(story())).consume(18)
    assert scene.partition.states() == whole.partition.states()
    assert scene.partition.transitions == whole.partition.transitions


async def test_a_stop_while_it_restores_ends_a_lane_that_has_not_read_all_there_is() -> None:
    broker = Broker(story())
    await Scene(broker, **EACH).consume(18)
    scene = Scene(broker)

    async def stop() -> None:
        scene.lane.stop()

    broker.at("chunk", stop)
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert (scene.lane.phase, broker.last_call(), scene.telemetry.of("restored")) == ("closed", "close", [])
    assert scene.store.log_offset < len(scene.partition.state_log)


async def test_a_lane_stopped_before_it_ran_touches_nothing() -> None:
    scene = Scene(Broker(story()))
    scene.lane.stop()
    await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert (scene.broker.calls, scene.lane.is_stopping, scene.lane.phase) == ([], True, "closed")


async def test_a_lane_that_is_cancelled_commits_nothing_and_lets_go_of_its_producer() -> None:
    scene = Scene(Broker(story()), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    task = asyncio.create_task(scene.lane.run())
    await until(lambda: scene.broker.last_call() == "fetch 18")
    await turns(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (scene.partition.commits, scene.broker.calls[-1]) == ([], "close")
    assert list(scene.store.staged()) == []


async def test_stream_time_survives_in_the_metadata_of_the_offset() -> None:
    retention_s = settings_of().retention_ended_s
    first = [call(each, "connected", each * HOUR_S) for each in range(retention_s // HOUR_S + 2)]
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
    assert [(each["cc-reason"], each["cc-source-offset"]) for each in second.dead()] == [("late", str(len(first) + 1))]
    metadata = f"stream-ms={BASE_MS + stream_s * 1_000} conversations=2 "
    metadata += f"state-offset={len(second.partition.state_log)} transitions-offset=2 dead-letters-offset=1"
    assert second.partition.committed == Committed(len(first) + 2, metadata)


@pytest.mark.parametrize(
    ("metadata", "stream_s"),
    [
        (f"stream-ms={BASE_MS + 5_000}", 5),
        (f"stream-ms={BASE_MS - 5_000}", 1),
        ("", 1),
        ("stream-ms=", 1),
        ("stream-ms=-5", 1),
        ("stream-ms=5x", 1),
        ("stream-ms=\u0665", 1),
        (f"written-by-another={BASE_MS + 5_000}", 1),
    ],
)
async def test_metadata_that_is_not_ours_means_no_stream_time(metadata: str, stream_s: int) -> None:
    broker = Broker([call(0, "alerting", 1)])
    broker.partitions[0].committed = Committed(0, metadata)
    scene = await Scene(broker).consume(1)
    metadata = f"stream-ms={BASE_MS + stream_s * 1_000} conversations=1 state-offset=1"
    assert scene.partition.committed == Committed(1, f"{metadata} transitions-offset=1 dead-letters-offset=0")


async def test_a_commit_without_states_marks_where_they_ended_before() -> None:
    scene = await Scene(Broker([rubbish(0), heartbeat(1)])).consume(2)
    assert scene.partition.committed == Committed(
        2, "conversations=0 state-offset=0 transitions-offset=0 dead-letters-offset=1"
    )
    scene.partition.input.append(call(2, "alerting", 1))
    await Scene(scene.broker).consume(3)
    scene.partition.input.append(heartbeat(3))
    await Scene(scene.broker).consume(4)
    metadata = f"stream-ms={BASE_MS + 1_000} conversations=1 state-offset=1 transitions-offset=1 dead-letters-offset=1"
    assert scene.partition.committed == Committed(4, metadata)


async def test_expired_conversations_are_evicted_with_a_tombstone_and_counted() -> None:
    retention_s = settings_of().retention_ended_s
    records = [call(0, "disconnected", 0, "old"), call(1, "alerting", 0, "live")]
    records += [call(each, "connected", (each - 1) * HOUR_S) for each in range(2, retention_s // HOUR_S + 3)]
    scene = await Scene(Broker(records), **EACH).consume(len(records))
    assert set(scene.partition.states()) == {b"live", b"c1"}
    assert (b"old", None) in scene.partition.state_log
    assert scene.store.lookup("old") is None
    assert sum(told[1].evicted for told in scene.telemetry.of("committed")) == 1


@pytest.mark.parametrize("changed", [{"dead_letters_consecutive_max": 3}, {"dead_letters_window_records": 3}])
async def test_rubbish_only_blocks_the_lane_at_its_limit(changed: dict[str, int]) -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), **changed)
    async with scene.running():
        await until(lambda: scene.lane.phase == "blocked")
        await turns()
        assert [effects.next_offset for effects in scene.partition.commits] == [3]
        assert len(scene.partition.dead_letters) == 3
        assert sum(each.startswith("fetch") for each in scene.broker.calls) == 1
        ((partition, cause),) = scene.telemetry.of("breaker_opened")
        assert (partition, cause) == (0, scene.lane.breaker.open_because)
        assert f"CC_{next(iter(changed)).upper().replace('WINDOW_RECORDS', 'RATIO_MAX')}" in cause
        before_s = scene.lane.last_progress_s
        scene.broker.clock.now_s += 1.0
        await until(lambda: scene.lane.last_progress_s > before_s)
    assert [effects.next_offset for effects in scene.partition.commits] == [3]


async def test_rubbish_below_the_limit_blocks_nothing() -> None:
    records = [rubbish(each) if each % 3 else call(each, "connected", each) for each in range(30)]
    scene = await Scene(Broker(records), dead_letters_consecutive_max=3, dead_letters_ratio_max=0.7).consume(30)
    assert scene.telemetry.of("breaker_opened") == []
    assert len(scene.partition.dead_letters) == 20


async def test_a_blocked_lane_that_cannot_commit_tries_again_and_stays_blocked() -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=3)
    scene.broker.at("commit", UNREACHABLE)
    async with scene.running():
        await until(lambda: scene.lane.phase == "blocked")
    assert 0 < len(scene.partition.dead_letters) <= 3
    assert len(scene.partition.dead_letters) == scene.partition.commits[-1].next_offset


async def test_a_failed_commit_does_not_count_its_dead_letters_twice() -> None:
    scene = Scene(Broker([rubbish(0), rubbish(1)]), dead_letters_consecutive_max=3)
    scene.broker.at("commit", UNREACHABLE)
    async with scene.running():
        await until(lambda: scene.lane.phase == "blocked" or scene.went_to(2)())
        assert scene.lane.breaker.open_because == ""


async def test_dead_letters_that_are_committed_still_count_after_a_commit_that_failed() -> None:
    scene = Scene(Broker([rubbish(offset) for offset in range(10)]), dead_letters_consecutive_max=4, **EACH)
    scene.broker.at("commit", nothing, nothing, UNREACHABLE)
    async with scene.running():
        await until(lambda: scene.lane.phase == "blocked")
    assert len(scene.partition.dead_letters) == 4


async def test_the_time_of_the_loop_is_told_by_what_it_was_spent_on() -> None:
    scene = Scene(Broker(story()), commit_interval_ms=700)

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


async def test_a_lane_reads_when_it_is_open() -> None:
    scene = Scene(Broker([call(0, "alerting", 1)]), commit_interval_ms=FOREVER_MS)
    scene.broker.fetch_waits = True
    reading: list[bool] = []

    async def note() -> None:
        reading.append(scene.lane.is_reading)

    for name in ("open", "fetch"):
        scene.broker.at(name, note, note)
    async with scene.running():
        await until(lambda: len(reading) == 3)
        assert repr(scene.lane) == "<Lane 0 running, 0 conversations, next 1>"
    assert reading == [False, True, True]


async def test_position_past_markers_is_committed() -> None:
    """Of an idle lane, after a while: retention deletes the markers later, and nothing is lost by that."""
    scene = Scene(Broker(story()))
    async with scene.running():
        await until(scene.went_to(18))
        scene.partition.markers_end = 21
        await turns()
        assert "commit 21" not in scene.broker.calls
        scene.broker.clock.now_s += lane_module.MARKERS_S
        await until(scene.went_to(21))
    assert scene.broker.calls.count("commit 21") == 1
    assert [commit.states for commit in scene.partition.commits if commit.next_offset == 21] == [[]]


async def test_failing_lane_is_retried_while_another_moves() -> None:
    """The partitions that can be served go on, however long one cannot."""
    scene = Scene(Broker(story()), retry_s_max=150.0)
    moving = [True] * 6 + [False]
    scene.lane._others_move = lambda: moving.pop(0)

    async def fail_later() -> None:
        scene.broker.clock.now_s += 100.0
        raise Unreachable("no answer")

    scene.broker.at("open", *[fail_later] * 20)
    with pytest.raises(Misfit, match=r"CC_RETRY_S_MAX"):
        await asyncio.wait_for(scene.lane.run(), WAIT_S)
    assert moving == []


async def test_transitions_are_published_as_json_of_the_schema() -> None:
    scene = await Scene(Broker([call(0, "connected", 5)])).consume(1)
    (letter,) = scene.partition.transitions
    found = json.loads(letter.value or b"")
    assert (letter.key, found["media"], found["from"], found["to"]) == (b"c1", "call", None, "connected")
    assert found["source"] == {"topic": "conversation-updates", "partition": 0, "offset": 0}
    assert msgspec.json.decode(scene.partition.states()[b"c1"])["source"] == found["source"]


async def test_a_state_topic_that_lost_conversations_ends_the_lane_with_the_remedy() -> None:
    broker = Broker(story())
    await Scene(broker).consume(18)
    del broker.partitions[0].state_log[:]
    with pytest.raises(
        Misfit, match=r"holds 0 conversations up to offset 0 and ends at 0, but .* with 2 up to 2:.*--reset-offsets"
    ):
        await asyncio.wait_for(Scene(broker).lane.run(), WAIT_S)


async def test_a_state_topic_that_lost_a_state_of_a_known_conversation_ends_the_lane_with_the_remedy() -> None:
    broker = Broker([call(0, "alerting", 1)])
    await Scene(broker).consume(1)
    broker.partitions[0].input.append(call(1, "connected", 2))
    await Scene(broker).consume(2)
    del broker.partitions[0].state_log[-1]
    with pytest.raises(
        Misfit, match=r"holds 1 conversations up to offset 1 and ends at 1, but .* with 1 up to 2:.*--reset-offsets"
    ):
        await asyncio.wait_for(Scene(broker).lane.run(), WAIT_S)


async def test_a_state_topic_that_ends_too_early_is_read_again_before_that_is_believed() -> None:
    """As a leader tells it that was suspended and has been replaced, until it hears of it."""
    broker = Broker(story())
    log = (await Scene(broker).consume(18)).partition.state_log
    hidden: list[tuple[bytes, bytes | None]] = []

    async def hide() -> None:
        hidden.append(log.pop())

    async def show() -> None:
        log.append(hidden.pop())

    broker.at("committed", hide, show)
    broker.partitions[0].input.append(call(18, "disconnected", 19, "c2"))
    scene = await Scene(broker).consume(19)
    assert len(scene.telemetry.of("commit_failed")) == 1
    assert shown_states(scene.partition.states()) == {"c1": "disconnected", "c2": "disconnected"}


@pytest.mark.parametrize("outlived", [True, False])
@pytest.mark.parametrize("committed", [1, 2, 3])
async def test_a_committed_offset_that_is_older_than_the_state_is_asked_for_again(
    *, outlived: bool, committed: int
) -> None:
    """As a coordinator tells it that was killed together with its replicas. A lane that outlived that knows better.

    Any other learns it from the state, which goes on after what was committed with the offset.
    """
    records = story()
    broker = Broker(records[:committed])
    begun = records[committed].offset
    scene = await Scene(broker).consume(begun)
    partition = scene.partition
    older = partition.committed
    partition.input.extend(records[committed:])
    newest: list[Committed | None] = []

    async def tell_older() -> None:
        newest.append(partition.committed)
        partition.committed = older

    async def tell_newest() -> None:
        partition.committed = newest[0]

    if outlived:
        scene = Scene(broker)
        async with scene.running():
            await until(scene.went_to(18))
            broker.at("committed", tell_older, tell_newest)
            broker.at("fetch", fails(Unreachable("away")))
            await until(lambda: bool(newest) and scene.went_to(18)())
    else:
        await Scene(broker).consume(18)
        broker.at("committed", tell_older, tell_newest)
        scene = await Scene(broker).consume(18)
    assert len(scene.telemetry.of("commit_failed")) == 1 + outlived
    assert [effects.next_offset for effects in partition.commits] == [begun, 18]
    assert len(partition.dead_letters) == 1


async def test_a_committed_offset_that_is_gone_is_told_and_the_lane_starts_at_the_beginning() -> None:
    broker = Broker([call(5, "alerting", 1)])
    broker.partitions[0].committed = Committed(2, "")
    scene = await Scene(broker).consume(6)
    assert scene.telemetry.of("offset_reset") == [(0, 2, 5)]


async def test_at_least_once_the_state_may_be_ahead_of_the_offset() -> None:
    broker = Broker(story())
    await Scene(broker).consume(18)
    partition = broker.partitions[0]
    assert partition.committed is not None
    partition.committed = Committed(17, partition.committed.metadata.replace("=2", "=1"))
    scene = await Scene(broker, delivery="at_least_once").consume(18)
    assert scene.partition.committed is not None
    assert scene.partition.committed.metadata == f"stream-ms={BASE_MS + 9_000}"


async def test_a_lane_decides_over_what_hangs_before_it_restores() -> None:
    """And it commits nothing more before that: the next marker would decide over it as well."""
    broker = Broker(story()[:4])
    scene = Scene(broker)
    partition = scene.partition
    async with scene.running():
        await until(scene.went_to(14))
        partition.undecided = Settlement(hanging={"transitions": 1})
        partition.decide = lambda _: setattr(partition, "undecided", Settlement())
        broker.calls.clear()
        partition.input.extend(story()[4:])
        await until(scene.went_to(18))
    assert scene.telemetry.of("transaction_repaired") == [(0, "commit", ["conversation-transitions"])]
    opened = broker.calls.index("open")
    assert broker.calls[opened : opened + 3] == ["open", "committed", "settle commit"]
    assert broker.calls.index("settle commit") < broker.calls.index(f"read {scene.store.log_offset - 2}")
    whole = await Scene(Broker(story())).consume(18)
    assert partition.states() == whole.partition.states()


async def test_an_idle_lane_notices_what_hangs() -> None:
    """Readers wait for its last commit, though it has no other one to make."""
    scene = Scene(Broker(story()))
    async with scene.running():
        await until(scene.went_to(18))
        scene.partition.undecided = Settlement(hanging={"state": 0})
        scene.partition.decide = lambda _: setattr(scene.partition, "undecided", Settlement())
        await until(lambda: bool(scene.telemetry.of("transaction_repaired")))
        await until(scene.went_to(18))


async def test_a_failed_producer_is_closed_before_the_lane_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might still send what was given up."""
    scene = Scene(Broker(story()))
    closed_at: list[str] = []

    def note(*_: object) -> None:
        closed_at.append(scene.broker.last_call())

    monkeypatch.setattr(scene.telemetry, "commit_failed", note)
    scene.broker.at("commit", UNREACHABLE, fails(Fenced("taken over")))
    async with scene.running():
        await until(lambda: len(closed_at) == 2)
    assert closed_at == ["close", "close"]


async def test_only_what_is_committed_is_passed_on() -> None:
    """A commit that failed comes again, with the same effects."""
    scene = Scene(Broker(story()), commit_records_max=4, fetch_records_max=4)
    scene.broker.at("commit", UNREACHABLE, nothing, UNREACHABLE)
    await scene.consume(18)
    assert [effects.next_offset for effects in scene.observed] == [14, 18]
    assert scene.observed == scene.partition.commits


async def test_recreated_topic_is_read_from_its_beginning() -> None:
    """Its offsets are not those of the records before, though there are as many."""
    broker = Broker(story())
    broker.topic_id = "a1"
    await Scene(broker).consume(18)
    broker.topic_id = "b2"
    scene = Scene(broker)
    async with scene.running():
        await until(lambda: "fetch 10" in broker.calls[broker.calls.index("close") :])
        await until(scene.went_to(18))
    assert scene.telemetry.of("offset_reset") == [(0, 18, 10)]


@pytest.mark.parametrize(("before", "after"), [("a1", "a1"), ("", "b2"), ("a1", "")])
async def test_same_topic_is_gone_on_with(before: str, after: str) -> None:
    """Also where a broker or the version that committed did not know the id."""
    broker = Broker(story())
    broker.topic_id = before
    await Scene(broker).consume(18)
    broker.topic_id = after
    scene = Scene(broker)
    async with scene.running():
        await until(lambda: scene.lane.phase == "running")
    assert scene.telemetry.of("offset_reset") == []


async def test_recreated_topic_reopens_a_running_lane() -> None:
    broker = Broker(story())
    broker.topic_id = "a1"
    scene = Scene(broker)
    async with scene.running():
        await until(scene.went_to(18))
        scene.lane.note_topic_id("a1")
        scene.lane.note_topic_id("")
        await turns()
        assert scene.telemetry.of("commit_failed") == []
        broker.topic_id = "b2"
        scene.lane.note_topic_id("b2")
        await until(lambda: bool(scene.telemetry.of("offset_reset")))
        await until(scene.went_to(18))
    ((_, error),) = scene.telemetry.of("commit_failed")
    assert "created again" in str(error)


async def test_offsets_that_were_deleted_with_the_topic_are_asked_for() -> None:
    """The state stays; only an operator can say whether the new topic is to be read over it."""
    broker = Broker(story())
    broker.topic_id = "a1"
    scene = Scene(broker)
    async with scene.running():
        await until(scene.went_to(18))
        broker.topic_id, scene.partition.committed = "b2", None
        scene.lane.note_topic_id("b2")
        await until(lambda: len(scene.telemetry.of("commit_failed")) > 2)
    failures = [str(error) for _, error in scene.telemetry.of("commit_failed")]
    assert "created again" in failures[0]
    assert "the group has no committed offset" in failures[1]
    assert "kafka-consumer-groups" in failures[1]
