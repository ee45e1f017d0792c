"""The worker, dying by SIGKILL at a step of its n-th commit: `python -m tests.live.crashing STEP N`, then as `run`.

The steps are the calls that a commit makes of its producer, each with the moment before and after it.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from consumer.__main__ import main

STEPS = tuple(
    f"{moment}-{call}"
    for call in ("begin_transaction", "send_batch", "send_offsets_to_transaction", "commit_transaction")
    for moment in ("before", "after")
)


def die_at(step: str, commit: int) -> None:
    moment, call = step.split("-", 1)
    real: Callable[..., Awaitable[Any]] = getattr(AIOKafkaProducer, call)
    calls = 0

    async def dying(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if moment == "before" and calls >= commit:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*args, **named)
        if calls >= commit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(AIOKafkaProducer, call, dying)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    main(["run"], prog_name="conversation-consumer")
