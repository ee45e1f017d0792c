"""What `plan` has to know of a machine: the cost of a record, of a commit and of a conversation, and the plans.

A worker runs at two steady rates, a quarter of what it manages and a fortieth. At both it commits equally often, so the
CPU of a record and that of a commit follow from the difference. So many conversations are active at the higher rate
that a commit seldom sees one twice, as in production: then a state is written for nearly every record.
"""

import statistics
import sys
from collections.abc import AsyncIterator
from itertools import islice

from consumer.simulator.story import STEP_S as CHANGE_S
from consumer.simulator.traffic import Draft, Traffic, records
from tests.benchmarks import plan, restore
from tests.benchmarks.latency import Steady, count_drafts, run_steadily
from tests.benchmarks.log_sizes import measure_bytes
from tests.benchmarks.options import Line, Options
from tests.benchmarks.plan import Inputs
from tests.benchmarks.scratch import Scratch
from tests.benchmarks.throughput import WORKER, Course, recent
from tests.live.harness import PARTITIONS, now_ms

_SHARE = 4
_FEW = 10
_COMPRESSION = 8
"""How many times as fast as real ones conversations change: every other second."""
_CHANGES_BEFORE = 4
"""Of each conversation before the worker sees it: the first states are small."""


async def measure(scratch: Scratch, options: Options) -> AsyncIterator[Line]:
    course = Course(scratch, options.events)
    await course.write(recent())
    catching_up = await course.run(WORKER)
    rate = options.rate or catching_up.events_per_s / _SHARE
    drafts = _draw(rate, count_drafts(rate, options))
    few = drafts[: count_drafts(rate / _FEW, options)]
    slow = await run_steadily(scratch, few, rate / _FEW)
    fast = await run_steadily(scratch, drafts, rate)
    (stored,) = [line async for line in restore.restore(scratch, options)]
    record_us, commit_us = _split_cpu(fast, slow, len(drafts), len(few))
    settings = fast.settings
    topics = [settings.input_topic, settings.state_topic, settings.transitions_topic]
    sizes = await measure_bytes(settings.bootstrap_servers, topics, PARTITIONS)
    input_bytes, state_log_bytes, transition_bytes = (round(sizes[topic] / len(drafts)) for topic in topics)
    async with scratch.workers(settings) as pipeline:
        states = await pipeline.read(settings.state_topic)
    ratio = sizes[settings.state_topic] / sum(len(record.value or b"") for record in states)
    print(f"scale: {len(states) / len(drafts):.2f} states written for a record, {rate:.0f} records/s", file=sys.stderr)
    state_bytes = int(stored["value_bytes"])
    inputs = Inputs(
        value_bytes=round(statistics.mean(len(draft.value) for draft in drafts)),
        input_bytes=input_bytes,
        record_us=round(record_us, 1),
        commit_us=round(commit_us),
        catching_up_us=round(1e6 / catching_up.events_per_cpu_s, 1),
        state_log_bytes=state_log_bytes,
        transition_bytes=transition_bytes,
        state_bytes=state_bytes,
        overhead_bytes=int(stored["overhead_bytes_per_conversation"]),
        stored_bytes=round(state_bytes * ratio),
        restore_us=round(1e6 / int(stored["conversations_per_cpu_s"]), 1),
        p99_of_interval=round(fast.percentile_ms(99) / fast.interval_ms, 2),
    )
    yield {"name": "scale", **{name: getattr(inputs, name) for name in inputs.__struct_fields__}}
    print(*plan.make_tables(inputs).values(), sep="\n\n")


def _draw(rate: float, count: int) -> list[Draft]:
    """Records at a rate, of conversations that have changed before."""
    conversations = max(1, round(rate * CHANGE_S / _COMPRESSION))
    traffic = Traffic(
        start_ms=now_ms(), records_per_s=rate, conversations=conversations, disorder=0, duplicates=0, broken=0
    )
    before = conversations * _CHANGES_BEFORE
    return list(islice(records(traffic), before, before + count))


def _split_cpu(fast: Steady, slow: Steady, many: int, few: int) -> tuple[float, float]:
    """The CPU of a record and of a commit in us, from two runs whose commits are equally frequent."""
    per_s = PARTITIONS / (fast.interval_ms / 1_000)
    commits_fast, commits_slow = per_s * fast.spent.seconds, per_s * slow.spent.seconds
    determinant = many * commits_slow - few * commits_fast
    record_s = (fast.spent.cpu_s * commits_slow - slow.spent.cpu_s * commits_fast) / determinant
    commit_s = (slow.spent.cpu_s * many - fast.spent.cpu_s * few) / determinant
    return record_s * 1e6, commit_s * 1e6
