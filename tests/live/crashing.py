"""The worker, struck at a step of its n-th commit: `python -m tests.live.crashing FATE STEP N ...`, then as `run`.

Three arguments are one fate, and there may be several. The steps are the calls that a commit makes of its producer,
each with the moment before and after it, and the calls of the native engine, in which the process can only be killed:
by a timer that the kernel lets expire in about the middle of the n-th call. The fates:

| fate   | what happens at the step                                                                  |
| ------ | ----------------------------------------------------------------------------------------- |
| killed | the process dies by SIGKILL                                                                 |
| paused | the process stops itself by SIGSTOP, once, until it gets SIGCONT                            |
| denied | the call is made, and then fails as if the broker's answer had been lost with the connection |
"""

import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from consumer.__main__ import main
from tests.live import witness

STEPS = tuple(
    f"{moment}-{call}"
    for call in ("begin_transaction", "send_batch", "send_offsets_to_transaction", "commit_transaction")
    for moment in ("before", "after")
)

NATIVE_STEPS = tuple(
    f"inside-{call}"
    for call in (
        "FetchedRecords.add", "FetchedRecords.take", "Core.process", "Core.drain_stats", "Core.find_staged",
        "Core.stage", "Core.stage_transitions", "Core.outputs", "Records.pack", "Core.staged", "Core.commit",
        "Core.staged_ids", "Core.rollback", "Core.clear",
    )
)  # fmt: skip
"""In the order in which records come along, and then those of a failure and of a restore."""
INSIDE = signal.SIGALRM
"""What ends a process inside a native call. Nothing handles it: it is as sudden as SIGKILL."""


def meet_inside(step: str, number: int) -> None:
    """End this process inside the n-th call of the native engine, or a later one if that is too short."""
    name, _, method = step.removeprefix("inside-").partition(".")
    owner = getattr(import_module("consumer.engine._native"), name)
    real = getattr(owner, method)
    calls, spent_s = 0, 0.0

    def doomed(*args: Any) -> Any:
        nonlocal calls, spent_s
        calls += 1
        started_s = time.perf_counter()
        if calls >= number:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, spent_s / calls * random.random()))
        try:
            return real(*args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            spent_s += time.perf_counter() - started_s

    setattr(owner, method, doomed)


def meet(fate: str, step: str, commit: int) -> None:
    """Strike this process when the step is reached for the n-th time."""
    moment, call = step.split("-", 1)
    real: Callable[..., Awaitable[Any]] = getattr(AIOKafkaProducer, call)
    calls = 0
    is_over = False

    def strike() -> None:
        nonlocal is_over
        is_over = True
        if fate == "denied":
            raise KafkaConnectionError("the answer was lost, says the test")
        os.kill(os.getpid(), signal.SIGKILL if fate == "killed" else signal.SIGSTOP)

    async def doomed(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        due = calls >= commit and not is_over
        if due and moment == "before":
            strike()
        result = await real(*args, **named)
        if due and moment == "after":
            strike()
        return result

    setattr(AIOKafkaProducer, call, doomed)


if __name__ == "__main__":
    witness.install()
    arguments = iter(sys.argv[1:])
    for fate, step, commit in zip(arguments, arguments, arguments, strict=True):
        if step in NATIVE_STEPS:
            meet_inside(step, int(commit))
        else:
            meet(fate, step, int(commit))
    main(["run"], prog_name="conversation-consumer")
