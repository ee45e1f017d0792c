"""Any worker answers for the whole group, through rebalances, killed and stopped workers. `-s` prints the table.

No record is written while workers come and go, so that what is live does not change: at any moment an answer holds no
communication that is not live, each once, and all of them if it says that it is complete.
"""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from msgspec import Struct

from consumer.query.timeline_view import communications
from consumer.simulator.traffic import Traffic
from schemas.state import ConversationState
from tests.live.commands import WAIT_S
from tests.live.harness import PARTITIONS, Pipeline, now_ms
from tests.live.worker_process import WorkerProcess

RECORDS = 600
SLOW = ("no answer within", "the group could not be described within")
TOKEN = "token-of-the-tests-of-the-fleet"
EVERY = set(range(PARTITIONS))


class Row(Struct):
    """What was answered in one phase."""

    phase: str
    model: int
    answers: int = 0
    complete: int = 0
    sums: Counter[int] = msgspec.field(default_factory=Counter)
    missing: Counter[str] = msgspec.field(default_factory=Counter)

    def __str__(self) -> str:
        missing = "; ".join(f"{text} ({count})" for text, count in self.missing.most_common())
        counts = f"{self.answers:>7} | {self.complete:>8} | {min(self.sums):>3} to {max(self.sums):>3} of {self.model}"
        return f"| {self.phase:<32} | {counts} | {missing or 'none'} |"


class Fleet:
    """The workers of a pipeline, which are asked side by side, and what is live by the states that they wrote."""

    def __init__(self, client: ClientSession, live: set[tuple[str, ...]]) -> None:
        self.live = live
        self.rows: list[Row] = []
        self._client = client

    async def ask(self, worker: WorkerProcess, path: str) -> Any:
        """The answer of a worker, None if it has none at the moment."""
        port = (await worker.logged("consumer.starting"))["query_port"]
        with contextlib.suppress(ClientError, TimeoutError, OSError):
            async with self._client.get(f"http://127.0.0.1:{port}/api/v1{path}") as answer:
                if answer.status == 200:
                    return msgspec.json.decode(await answer.read())
        return None

    async def ask_pages(self, worker: WorkerProcess) -> list[Any]:
        """All pages of live communications, as far as the worker answers. A busy one ends a page early."""
        pages: list[Any] = []
        path = "/communications?limit=500"
        while (page := await self.ask(worker, path)) is not None:
            pages.append(page)
            if page["next"] is None:
                return pages
            path = f"/communications?limit=500&cursor={page['next']}"
        return []

    def check(self, row: Row, pages: list[Any], overview: Any) -> bool:
        """Assert what holds of all answers, and note it in a row; returns whether all are complete."""
        found = [
            (item["since"], item["conversationId"], item["media"], item["participantId"], item["communicationId"] or "")
            for page in pages
            for item in page["items"]
        ]
        assert found == sorted(set(found)), "each once, in order"
        assert set(found) <= self.live
        counted = sum(count["count"] for count in overview["live"])
        assert counted <= len(self.live)
        for answers, total in ((pages, len(found)), ([overview], counted)):
            is_complete = all(answer["complete"] for answer in answers)
            assert not is_complete or total == len(self.live)
            row.answers += 1
            row.complete += is_complete
            row.sums[total] += 1
            for answer in answers:
                named = [partition for missing in answer["missing"] for partition in missing["partitions"]]
                assert sorted([*answer["partitions"], *named]) == sorted(EVERY), answer["missing"]
                assert answer["complete"] == (not answer["missing"])
                for missing in answer["missing"]:
                    row.missing[missing["reason"].partition("(")[0].rstrip()] += 1
        return all(answer["complete"] for answer in (*pages, overview))

    async def sample(self, row: Row, worker: WorkerProcess) -> bool:
        """Ask a worker and check its answers; returns whether both are complete."""
        pages, overview = await asyncio.gather(self.ask_pages(worker), self.ask(worker, "/overview"))
        return bool(pages) and overview is not None and self.check(row, pages, overview)

    async def complete(self, phase: str, workers: Sequence[WorkerProcess], least: int = 1) -> Row:
        """Ask workers until they share all partitions, and each has answered completely `least` times since then."""
        row = Row(phase, len(self.live))
        self.rows.append(row)

        async def watch(worker: WorkerProcess) -> None:
            complete = 0
            while complete < least:
                is_complete = await self.sample(row, worker)
                complete = complete + is_complete if share_all(workers) else 0
                await asyncio.sleep(0.02)

        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as watching:
            for worker in workers:
                watching.create_task(watch(worker))
        return row

    async def incomplete(self, phase: str, worker: WorkerProcess) -> Row:
        """Ask a worker until its answers are not complete."""
        row = Row(phase, len(self.live))
        self.rows.append(row)
        async with asyncio.timeout(WAIT_S):
            while await self.sample(row, worker):
                await asyncio.sleep(0.02)
        return row

    def print_table(self) -> None:
        print("\n| phase                            | answers | complete | live communications | partitions missing |")
        print("| --- | --- | --- | --- | --- |")
        for row in self.rows:
            print(row)


def share_all(workers: Sequence[WorkerProcess]) -> bool:
    """Whether the last assignments of workers are all partitions, each once."""
    assigned = [worker.events("group.assigned") for worker in workers]
    partitions = [partition for lines in assigned if lines for partition in lines[-1]["partitions"]]
    return all(assigned) and sorted(partitions) == sorted(EVERY)


@asynccontextmanager
async def fleet(pipeline: Pipeline) -> AsyncIterator[Fleet]:
    """Traffic that two workers have processed, which have ended by then."""
    pipeline.change(query_token=TOKEN, query_advertised="127.0.0.1")
    await pipeline.write_traffic(Traffic(seed=11, start_ms=now_ms(), conversations=80), RECORDS)
    worker = await pipeline.start_worker()
    await pipeline.caught_up()
    assert await worker.end(signal.SIGTERM) == 0
    states = (await pipeline.judge()).states
    live: set[tuple[str, ...]] = {
        (view.transitions[0].event_time, conversation_id, view.media, view.participant_id, view.communication_id or "")
        for conversation_id, state in states.items()
        for view in communications(msgspec.json.decode(state, type=ConversationState), 32)
        if view.live
    }
    assert len(live) > 50
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with ClientSession(timeout=ClientTimeout(total=20), headers=headers) as client:
        yield Fleet(client, live)


def owner(workers: Sequence[WorkerProcess]) -> WorkerProcess:
    """The one that was assigned the most partitions last."""
    return max(workers, key=lambda worker: len(worker.events("group.assigned")[-1]["partitions"]))


async def test_the_sum_is_the_model_and_never_more(pipeline: Pipeline) -> None:
    async with fleet(pipeline) as asked:
        workers = [await pipeline.start_worker() for _ in range(3)]
        await asked.complete("three workers start", workers)
        rest = await asked.complete("at rest", workers, least=5)
        fourth = await pipeline.start_worker()
        await fourth.logged("group.assigned")
        moved = await asked.complete("a fourth joins", [*workers, fourth], least=2)
        workers.append(fourth)

        killed = owner(workers)
        workers.remove(killed)
        await killed.end(signal.SIGKILL)
        death = await asked.incomplete("one is killed", workers[0])
        await asked.complete("the others take over", workers, least=2)

        stopped = owner(workers)
        workers.remove(stopped)
        stopped.send(signal.SIGSTOP)
        stop = await asked.incomplete("one is stopped", workers[0])
        await asked.complete("the others take over again", workers, least=2)
        stopped.send(signal.SIGCONT)
        await asked.complete("the stopped one goes on", [*workers, stopped], least=2)
        await asked.complete("at rest again", [*workers, stopped], least=5)
        asked.print_table()
        for row in (rest, asked.rows[-1]):
            assert all(reason.startswith(SLOW) for reason in row.missing), "nothing is missing but on a busy machine"
        assert moved.answers > moved.complete or asked.rows[0].answers > asked.rows[0].complete
        for row in (death, stop):
            assert row.missing, "the partitions of the worker that has gone are named"
            assert min(row.sums) < len(asked.live)


async def test_a_static_member_that_restarts_elsewhere_is_found(pipeline: Pipeline) -> None:
    """It gets its partitions back without a rebalance, and its query port has another number."""
    async with fleet(pipeline) as asked:
        pipeline.change(session_timeout_ms=45_000)
        workers = []
        for number in range(2):
            pipeline.change(group_instance_id=f"static-{number}")
            workers.append(await pipeline.start_worker())
        await asked.complete("two static members start", workers)
        generations = len(workers[0].events("group.assigned"))
        await workers[1].end(signal.SIGKILL)
        await asked.incomplete("one is killed", workers[0])
        workers[1] = await pipeline.start_worker()
        await asked.complete("it is back at another address", workers, least=2)
        asked.print_table()
        assert len(workers[0].events("group.assigned")) == generations, "no rebalance"


async def test_a_member_of_another_version_is_named(pipeline: Pipeline) -> None:
    """One that tells no address, as all did before workers asked each other."""
    async with fleet(pipeline) as asked:
        worker = await pipeline.start_worker()
        await asked.complete("one worker", [worker])
        settings = pipeline.settings
        other = AIOKafkaConsumer(
            settings.input_topic, bootstrap_servers=settings.bootstrap_servers, group_id=settings.group_id,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,), enable_auto_commit=False,
        )  # fmt: skip
        async with asyncio.timeout(WAIT_S):
            await other.start()
            try:
                row = Row("a member without an address", len(asked.live))
                asked.rows.append(row)
                while not any("advertises no address" in reason for reason in row.missing):
                    await asked.sample(row, worker)
                    await asyncio.sleep(0.05)
            finally:
                await other.stop()
        await asked.complete("it has left", [worker])
        asked.print_table()
