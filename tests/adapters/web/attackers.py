"""Clients that mean harm, in a process of their own: `python -m tests.adapters.web.attackers PORT...`.

Each attack goes on until standard input ends, on each port. Then one line of JSON tells how often each was carried out.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

STEP_S = 0.02
HEAD = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BAD = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # somebody speaks TLS
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
    bad: 8,
}
"""How many of each at the same time, per port."""


async def again_and_again(attack: Attack, port: int, done: Counter[str]) -> None:
    for turn in itertools.count():
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            connection.settimeout(0)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            streams = await asyncio.open_connection(sock=connection)
            done[attack.__name__] += 1
            try:
                await attack(turn, streams)
            finally:
                streams[1].transport.abort()
        await asyncio.sleep(STEP_S)


async def main(ports: list[int]) -> None:
    done: Counter[str] = Counter()
    tasks = [
        asyncio.create_task(again_and_again(attack, port, done))
        for port in ports
        for attack, at_once in ATTACKS.items()
        for _ in range(at_once)
    ]
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, failed
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1:]]))
