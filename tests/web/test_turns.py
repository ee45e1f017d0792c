"""Who gets the next turn."""

import asyncio

from consumer.web.turns import BURST, Turns
from tests.fakes import turns as run_loop

FAST = 1e9


async def held(running_max: int = 1) -> Turns:
    """Turns of which all are in use."""
    turns = Turns(FAST, running_max)
    for _ in range(running_max):
        await turns.acquire("holder")
    return turns


async def test_peers_get_turns_in_rotation_after_precedence() -> None:
    turns, order = await held(), list[str]()

    async def ask(peer: str, number: int, *, takes_precedence: bool = False) -> None:
        await turns.acquire(peer, takes_precedence=takes_precedence)
        order.append(f"{peer}{number}")
        turns.release()

    async with asyncio.TaskGroup() as asking:
        for number in range(3):
            asking.create_task(ask("a", number))
        asking.create_task(ask("b", 0))
        asking.create_task(ask("b", 1))
        asking.create_task(ask("c", 0))
        asking.create_task(ask("d", 0, takes_precedence=True))
        await run_loop()
        turns.release()
    assert order == ["d0", "a0", "b0", "c0", "a1", "b1", "a2"]


async def test_no_more_turns_are_in_use_than_allowed() -> None:
    turns = await held(3)
    waiting = [asyncio.create_task(turns.acquire("a")) for _ in range(4)]
    for in_use in range(3):
        await run_loop()
        assert [task.done() for task in waiting].count(True) == in_use
        turns.release()
    await run_loop()
    waiting[3].cancel()
    await asyncio.wait(waiting)


async def test_turns_come_at_a_rate() -> None:
    turns = Turns(100, 1_000)
    began_s = asyncio.get_running_loop().time()
    for number in range(BURST + 20):
        await turns.acquire("a" if number % 2 else "b")
    assert asyncio.get_running_loop().time() - began_s > 19 / 100


async def test_whoever_leaves_before_its_turn_uses_none() -> None:
    """Also one that is cancelled after its turn was granted, and before it noticed."""
    turns = await held()
    waiting = [asyncio.create_task(turns.acquire(peer)) for peer in ("a", "a", "b")]
    await run_loop()
    waiting[0].cancel()
    await run_loop()
    turns.release()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 60)
    assert [task.cancelled() for task in waiting] == [True, True, False]
    turns.release()
    await asyncio.wait_for(turns.acquire("a"), 60)


async def test_a_turn_is_not_granted_to_one_that_is_about_to_leave() -> None:
    turns = await held()
    leaving = asyncio.create_task(turns.acquire("a"))
    staying = asyncio.create_task(turns.acquire("b"))
    await run_loop()
    leaving.cancel()
    turns.release()
    await asyncio.wait_for(staying, 60)
    assert leaving.cancelled()
