"""The worker, struck at a step of its n-th commit: `python -m tests.live.crashing FATE STEP N ...`, then as `run`.

Three arguments are one fate, and there may be several. The steps are the calls that a commit makes of its producer,
each with the moment before and after it. The fates:

| fate   | what happens at the step                                                                  |
| ------ | ----------------------------------------------------------------------------------------- |
| killed | the process dies by SIGKILL                                                                 |
| paused | the process stops itself by SIGSTOP, once, until it gets SIGCONT                            |
| denied | the call is made, and then fails as if the broker's answer had been lost with the connection |
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
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
        meet(fate, step, int(commit))
    main(["run"], prog_name="conversation-consumer")
