"""Clients that mean harm, in a process of their own: `python -m tests.web.attackers [ATTACK=CLIENTS...] PORT...`.

All attacks, or those that are named, go on until standard input ends, on every port. The first line of the output says
that every client has begun; the last is JSON with how often each attack was made.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

STEP_S = 0.02
PIPELINED = 20
HEAD = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BAD = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a client speaks TLS
    b"GET\r\n\r\n",
    b"\r\n" * 1_000,
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n" + bytes(9_000),
    b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + bytes(9_000),
    b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/openmetrics-text; version=abc\r\n\r\n",
    b"DELETE /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[int, Streams], Awaitable[None]]


async def slow_head(_: int, streams: Streams) -> None:
    streams[1].write(HEAD)
    while True:
        streams[1].write(b"X")
        await streams[1].drain()
        await asyncio.sleep(STEP_S)


async def slow_body(_: int, streams: Streams) -> None:
    streams[1].write(b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
    while True:
        streams[1].write(b"x")
        await streams[1].drain()
        await asyncio.sleep(STEP_S)


async def slow_reader(_: int, streams: Streams) -> None:
    reader, writer = streams
    writer.write((HEAD + b"\r\n") * 20)
    while await reader.read(1):
        await asyncio.sleep(STEP_S)


async def idle(_: int, streams: Streams) -> None:
    await streams[0].read()


async def large_head(_: int, streams: Streams) -> None:
    streams[1].write(HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"y" * 2_000) for number in range(500)))
    await streams[0].read()


async def long_line(_: int, streams: Streams) -> None:
    streams[1].write(b"GET /" + b"x" * 1_000_000)
    await streams[0].read()


async def pipelined(_: int, streams: Streams) -> None:
    streams[1].write((HEAD + b"\r\n") * 5_000)
    await streams[0].read()


async def hammer(_: int, streams: Streams) -> None:
    reader, writer = streams
    while True:
        writer.write(HEAD + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)


async def keep_alive(_: int, streams: Streams) -> None:
    """Have requests waiting at any time, on one connection for as long as the server lets it."""
    await _pipeline(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", streams)


async def login_flood(_: int, streams: Streams) -> None:
    """Guess the token, by the form."""
    await _pipeline(
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 27\r\n\r\ntoken=0123456789-guess-guess",
        streams,
    )


async def login_once(_: int, streams: Streams) -> None:
    """Guess the token, with a new connection for each guess."""
    streams[1].write(
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 11\r\n\r\ntoken=guess"
    )
    await streams[0].read()


async def half_closed(turn: int, streams: Streams) -> None:
    streams[1].write((HEAD, HEAD + b"\r\n", b"")[turn % 3])
    streams[1].write_eof()
    await streams[0].read()


async def _pipeline(request: bytes, streams: Streams) -> None:
    reader, writer = streams
    writer.write(request * PIPELINED)
    while True:
        await reader.readuntil(b"HTTP/1.1 ")
        writer.write(request)


async def bad(turn: int, streams: Streams) -> None:
    streams[1].write(BAD[turn % len(BAD)])
    await streams[0].read()


ATTACKS: dict[Attack, int] = {
    slow_head: 60,
    slow_body: 30,
    slow_reader: 30,
    idle: 100,
    large_head: 4,
    long_line: 4,
    pipelined: 4,
    hammer: 16,
    keep_alive: 16,
    login_flood: 16,
    login_once: 16,
    half_closed: 16,
    bad: 8,
}
"""How many clients attack so at the same time, per port."""


async def repeat(attack: Attack, port: int, done: Counter[str], begun: asyncio.Semaphore) -> None:
    for turn in itertools.count():
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            connection.settimeout(0)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            streams = await asyncio.open_connection(sock=connection)
            done[attack.__name__] += 1
            if turn == 0:
                begun.release()
            try:
                await attack(turn, streams)
            finally:
                streams[1].transport.abort()
        await asyncio.sleep(STEP_S)


async def main(ports: list[int], attacks: dict[Attack, int]) -> None:
    done: Counter[str] = Counter()
    begun = asyncio.Semaphore(0)
    tasks = [
        asyncio.create_task(repeat(attack, port, done, begun))
        for port in ports
        for attack, clients in attacks.items()
        for _ in range(clients)
    ]
    for _ in tasks:
        await begun.acquire()
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, failed
    print(json.dumps(done), flush=True)


@contextlib.asynccontextmanager
async def attacking(*ports: int, **clients: int) -> AsyncIterator[Counter[str]]:
    """Attack the ports during the block, in a process of its own; then the counter has the attacks by name.

    `clients` are the numbers of clients by attack; without any, all attacks are made.
    """
    done: Counter[str] = Counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.web.attackers",
        *(f"{attack}={count}" for attack, count in clients.items()), *map(str, ports),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        yield done
        out, _ = await process.communicate(b"")  # its standard input ends
        done.update(json.loads(out))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    named = dict(argument.split("=") for argument in sys.argv[1:] if "=" in argument)
    chosen = {attack: int(named[attack.__name__]) for attack in ATTACKS if attack.__name__ in named}
    asyncio.run(main([int(port) for port in sys.argv[1 + len(named) :]], chosen or ATTACKS))
