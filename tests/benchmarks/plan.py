"""How large an installation has to be: from what one machine measured to workers, brokers and disks.

All of it is arithmetic over `Inputs`, which `make bench PARTS=scale` measures. The tables of
`docs/explanation/capacity.md` are those of `MEASURED`: `python -m tests.benchmarks.plan` writes them again.
"""

import math
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from msgspec import Struct

from consumer.container_memory import share_of_states
from consumer.settings import Settings
from consumer.worker.commit_policy import CommitPolicy
from docs.generate.docstrings import attribute_docstrings
from docs.generate.markdown import table

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "capacity.md"
RATES: Final = (1_000, 10_000, 100_000)
CONVERSATIONS: Final = (1_000_000, 50_000_000)

CORE_SHARE: Final = 0.6
"""Of a core that planned load takes: the rest is for peaks, catching up, and what else a worker does."""
WORKER_BYTES: Final = 8 * 2**30
"""The memory limit of a worker."""
RESTORE_S: Final = 120
"""How long all partitions may take to open when every worker starts with nothing, in seconds."""
LANES_MIN: Final = 2
"""Partitions for each worker, so that there may be twice as many workers one day without a new topic."""
REPLICAS: Final = 3
DIRTY_SHARE: Final = 0.5
"""Of a compacted topic that Kafka leaves uncleaned (`min.cleanable.dirty.ratio`)."""
REQUESTS_PER_TRANSACTION: Final = 7
"""AddPartitionsToTxn and Produce for two outputs, AddOffsetsToTxn, TxnOffsetCommit, EndTxn."""
BACKLOG_S: Final = 3_600
_COMMITS_PER_S_MAX: Final = 22
"""Of a worker: the commit interval grows with its lanes."""


class Inputs(Struct, frozen=True, kw_only=True):
    """What is measured. Bytes of a topic are those on the disk of one broker, compressed."""

    value_bytes: int
    """bytes of a record's value"""
    input_bytes: int
    """bytes of a record in the input topic"""
    record_us: float
    """CPU of a worker for a record at a steady rate, in us"""
    commit_us: float
    """CPU of a worker for a commit, in us"""
    catching_up_us: float
    """CPU of a worker for a record while it catches up, in us"""
    state_log_bytes: int
    """bytes written to the state topic for a record at a steady rate"""
    transition_bytes: int
    """bytes written to the transitions topic for a record at a steady rate"""
    state_bytes: int
    """bytes of a conversation's state"""
    overhead_bytes: int
    """bytes of memory for a conversation beside its state"""
    stored_bytes: int
    """bytes of a conversation in the state topic"""
    restore_us: float
    """CPU of a worker to restore a conversation, in us"""
    p99_of_interval: float
    """p99 of the latency at a steady rate, in commit intervals"""


MEASURED: Final = Inputs(
    value_bytes=3_251,
    input_bytes=661,
    record_us=98.3,
    commit_us=10_849,
    catching_up_us=76.4,
    state_log_bytes=323,
    transition_bytes=105,
    state_bytes=5_258,
    overhead_bytes=431,
    stored_bytes=671,
    restore_us=33.0,
    p99_of_interval=6.2,
)
"""On the machine of the page, with the native engine. The latency is of an earlier run, on a less busy machine."""


class Plan(Struct, frozen=True, kw_only=True):
    """An installation for a rate of records and a number of known conversations."""

    rate: int
    conversations: int
    needs: dict[str, int]
    """Workers that are needed, by what needs them."""
    workers: int
    """One more than is needed, so that one may be lost."""
    partitions: int
    worker_bytes: float
    """Memory of each worker for states."""
    core_share: float
    """Of a core, by each worker."""
    core_share_without_one: float
    """The same after the loss of one worker: the others have more lanes, each of which commits less often."""
    interval_s: float
    """Between two commits of a lane."""
    p99_s: float
    transactions_per_s: float
    read_bytes_per_s: float
    """By all workers from the brokers."""
    written_bytes_per_s: float
    """By all workers to the brokers, before replication."""
    state_topic_bytes: float
    """Of one replica, as large as it becomes before it is compacted."""
    restore_s: float
    """Until all partitions are open when every worker starts with nothing."""
    catch_up_s: float
    """To catch up with an hour in which no worker ran, while records go on."""

    @property
    def bottleneck(self) -> str:
        """What needs the most workers; "none" if one does it all."""
        name, workers = max(self.needs.items(), key=lambda need: need[1])
        return name if workers > 1 else "none"


def make_plan(inputs: Inputs, rate: int, conversations: int) -> Plan:
    """Size an installation. A worker uses one core; memory and restore are those after the loss of one worker."""
    memory_bytes = conversations * (inputs.state_bytes + inputs.overhead_bytes)
    committing = _COMMITS_PER_S_MAX * inputs.commit_us / 1e6
    needs = {
        "CPU": math.ceil(rate * inputs.record_us / 1e6 / (CORE_SHARE - committing)),
        "memory": math.ceil(memory_bytes / share_of_states(WORKER_BYTES)),
        "restore": math.ceil(conversations * inputs.restore_us / 1e6 / RESTORE_S),
    }
    workers = max(needs.values()) + 1
    partitions = 1 << math.ceil(math.log2(workers * LANES_MIN))
    interval_s = _find_interval_s(math.ceil(partitions / workers))
    transactions_per_s = partitions / interval_s

    def share_core(workers: int) -> float:
        commits_per_s = partitions / _find_interval_s(math.ceil(partitions / workers))
        return (rate * inputs.record_us + commits_per_s * inputs.commit_us) / 1e6 / workers

    written = rate * (inputs.state_log_bytes + inputs.transition_bytes)
    return Plan(
        rate=rate,
        conversations=conversations,
        needs=needs,
        workers=workers,
        partitions=partitions,
        worker_bytes=memory_bytes / workers,
        core_share=share_core(workers),
        core_share_without_one=share_core(workers - 1),
        interval_s=interval_s,
        p99_s=interval_s * inputs.p99_of_interval,
        transactions_per_s=transactions_per_s,
        read_bytes_per_s=rate * inputs.input_bytes,
        written_bytes_per_s=written,
        state_topic_bytes=conversations * inputs.stored_bytes / (1 - DIRTY_SHARE),
        restore_s=conversations * inputs.restore_us / 1e6 / workers,
        catch_up_s=rate * BACKLOG_S / (workers * 1e6 / inputs.catching_up_us - rate),
    )


def _find_interval_s(lanes: int) -> float:
    """The default commit interval of a worker with so many lanes."""
    return CommitPolicy.of(Settings(bootstrap_servers="any:9092"), lanes).interval_s


def make_tables(inputs: Inputs) -> dict[str, str]:
    """The tables of the page by their names: the inputs, workers, and what the brokers get."""
    plans = [make_plan(inputs, *size) for size in product(RATES, CONVERSATIONS)]
    meanings = attribute_docstrings(Inputs)
    return {
        "inputs": table(
            ("measured", "value"),
            [(meanings[name], f"{getattr(inputs, name):,}") for name in Inputs.__struct_fields__],
        ),
        "workers": table(
            (
                "records a second", "conversations", "workers for CPU, memory, restore", "first bottleneck", "workers",
                "partitions", "core of each", "states of each", "restore, all at once", "an hour's backlog",
            ),
            [
                (
                    *_size(plan), ", ".join(map(str, plan.needs.values())), plan.bottleneck, str(plan.workers),
                    str(plan.partitions), f"{plan.core_share:.0%}", _bytes(plan.worker_bytes), _time(plan.restore_s),
                    _time(plan.catch_up_s),
                )
                for plan in plans
            ],
        ),
        "brokers": table(
            (
                "records a second", "conversations", "commit interval", "p99 of latency", "transactions a second",
                "their requests", "read", "written, with replicas", "state topic, each replica",
            ),
            [
                (
                    *_size(plan), _time(plan.interval_s), _time(plan.p99_s), f"{plan.transactions_per_s:,.0f}",
                    f"{plan.transactions_per_s * REQUESTS_PER_TRANSACTION:,.0f}/s",
                    f"{_bytes(plan.read_bytes_per_s)}/s", f"{_bytes(plan.written_bytes_per_s * REPLICAS)}/s",
                    _bytes(plan.state_topic_bytes),
                )
                for plan in plans
            ],
        ),
    }  # fmt: skip


def _size(plan: Plan) -> Sequence[str]:
    return f"{plan.rate:,}", f"{plan.conversations // 1_000_000} million"


def _bytes(count: float) -> str:
    """With two digits or more."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.{1 if count < size * 10 else 0}f} {unit}"
    return f"{count / 1e3:.0f} KB"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def fill(page: str, inputs: Inputs) -> str:
    """The page with the tables of such inputs, each after a comment with its name."""
    for name, text in make_tables(inputs).items():
        before, mark, after = page.partition(f"<!-- {name} -->\n\n")
        page = before + mark + text + "\n" + re.sub(r"^(?:[|].*\n)*", "", after)
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), MEASURED), encoding="utf-8")
