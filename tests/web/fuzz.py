"""Hostile bytes for both ports, from many addresses: `python -m tests.web.fuzz [--minutes 10] [--seed SEED]`.

The ports run in a process of their own, beside a worker with conversations. Clients on loopback addresses send what a
seed makes of valid requests, pipelines, floods of headers, bodies, streams and noise, at whatever pace is worst, while
probes come from an address of their own. It fails for an answer 500, an error that the ports log, a probe without an
answer or with a late one, a connection or a task that outlives its client, and memory beyond `GROWTH_BYTES_MAX`.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import re
import resource
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct, field
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

from consumer.web.admin_port import AdminServer
from tests.web.test_query_port import MARK, TOKEN, serving

GROWTH_BYTES_MAX: Final = 64 << 20
"""The connections of both ports times what one may hold, and room for what Python does not return."""
CLIENTS: Final = 48
"""Each with an address of its own."""
PROBE_GAP_S: Final = 0.1
LATE_S: Final = 1.0
_QUIET_S: Final = 60.0
"""In which the ports are rid of clients that have gone."""
_WAIT_S: Final = 60.0
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

_PATHS: Final = (
    "/livez", "/readyz", "/metrics", "/", "/find?id=%00", "/find?id=live-1", f"/conversations/{MARK}", "/login",
    "/conversations/none?asOf=2026-01-31T09:05:00Z", f"/conversations/{MARK}?asOf=x", "/events", "/events/live-1",
    "/events/%ff", "/logout", "/assets/page.js", "/assets/..%2f..%2fx", "/api/v1/openapi.json", "/api/", "/api/v1/x",
    f"/api/v1/conversations/{MARK}", f"/api/v1/conversations/{MARK}/timeline?asOf=2026-01-31T09:05:00Z", "*", "//",
    "/%", "/api/v1/communications?media=call&limit=1", "/api/v1/communications?limit=-1&cursor=WzFd", "http://x/livez",
    "/api/parts/v1/overview", "/api/parts/v1/recent?request=%7B%22conversation_id%22:%22x%22%7D",
    "/api/parts/v1/communications?request=%7B%22limit%22:3%7D",
)  # fmt: skip
_METHODS: Final = ("GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "CONNECT", "TRACE", "PRI", "get")
_FIELDS: Final = (
    "Connection: close", "Connection: keep-alive", "Connection: upgrade\r\nUpgrade: websocket", "Upgrade: h2c",
    "Accept: application/openmetrics-text; version=abc", "Accept: \xff, */*;q=x", "Accept-Encoding: gzip, br",
    "Cookie: cc_session=x; cc_session=y", "Cookie: =;;\xfe=\x80", "Cookie: cc_session=9999999999.\xe9",
    f"Authorization: Bearer {TOKEN}", f"Authorization: bearer {TOKEN}", "Authorization: Bearer \xff", "Authorization:",
    "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Origin: null", "Origin: http://[", "Origin: x://:99999",
    "Content-Type: application/x-www-form-urlencoded; charset=utf-7", "Content-Type: multipart/form-data; boundary=",
    "Content-Length: 7", "Content-Length: 18446744073709551616", "Content-Length: 7\r\nContent-Length: 8",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, chunked", "Content-Encoding: gzip", "Range: bytes=0-",
    "Expect: 100-continue",
    "Host: y", "X-Folded: a\r\n b", "X :y", ": z", "X-Forwarded-For: 127.0.0.1", "If-None-Match: *",
)  # fmt: skip
_HOSTS: Final = ("127.0.0.1", "localhost:1", "x", "", "[::1]", "[", "a b", "\xff", "127.0.0.1:99999999999")
_BODIES: Final = (
    b"", b"token=x", b"token=%ff%00&token=y", b"3\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"-1\r\n\r\n",
    b"5;" + b"e" * 3_000 + b"\r\nabcde\r\n0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"\x1f\x8b\x08" + bytes(20),
    b"0\r\n" * 50, bytes(5_000),
)  # fmt: skip


def request(rng: random.Random) -> bytes:
    """A request, mostly one that the ports may be asked."""
    fields = [f"Host: {_HOSTS[0] if rng.random() < 0.7 else rng.choice(_HOSTS)}"]
    fields += [rng.choice(_FIELDS) for _ in range(rng.choice((0, 0, 1, 1, 2, 4)))]
    if rng.random() < 0.3:
        fields.append(f"Authorization: Bearer {TOKEN}")
    version = "HTTP/1.1" if rng.random() < 0.9 else rng.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", ""))
    head = "\r\n".join([f"{rng.choice(_METHODS)} {rng.choice(_PATHS)} {version}", *fields, "", ""])
    return head.encode("latin-1") + (rng.choice(_BODIES) if rng.random() < 0.3 else b"")


def mutated(rng: random.Random) -> bytes:
    """A request with some bytes changed, left out, put in or repeated."""
    data = bytearray(request(rng))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 9)]
            case 2:
                data[at:at] = rng.choice((b"\r\n", b"\n", b"\0", b"\r", b" ", b":", b"\xff", b"%", b"\t"))
            case _:
                data[at:at] = data[at : at + rng.randint(1, 40)] * rng.randint(1, 5)
    return bytes(data)


def flood(rng: random.Random) -> bytes:
    """A request with more headers than anybody needs."""
    size = rng.choice((1, 50, 5_000))
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"y" * size) for number in range(rng.choice((10, 70, 700))))
    return b"GET /livez HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"


def stream(rng: random.Random) -> bytes:
    """A request for server-sent events, with the token."""
    path = rng.choice(("/events", "/events/live-1", f"/events/{MARK}", "/events/none"))
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


CASES: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "noise": lambda rng: rng.randbytes(rng.randrange(5_000)),
    "request": request,
    "mutated": mutated,
    "pipeline": lambda rng: b"".join(rng.choice((request, request, mutated))(rng) for _ in range(rng.randint(2, 40))),
    "flood": flood,
    "stream": stream,
}
PACES: Final = ("at once", "at once", "slowly", "half closed", "and reads slowly", "and leaves", "and stays")


class Report(Struct):
    """What came of the clients and of the probes."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    probes_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    """How long, of each probe's time, the ports or their clients waited for a CPU: that is not theirs to answer for."""
    highest_bytes: int = 0


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int, address: str) -> Streams:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)  # noqa: FBT003 - the method's name says what it means
    connection.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=connection)


async def send(rng: random.Random, data: bytes, pace: str, streams: Streams) -> bytes:
    """Send bytes at a pace; returns what came back."""
    reader, writer = streams
    if pace == "slowly":
        data = data[: rng.randint(0, 400)]
        while data:
            cut = rng.randint(1, 40)
            writer.write(data[:cut])
            data = data[cut:]
            await asyncio.sleep(rng.random() * 0.05)
    else:
        writer.write(data)
    if pace == "half closed":
        writer.write_eof()
    if pace == "and leaves":
        return b""
    answer, until_s = b"", time.monotonic() + rng.choice((0.05, 0.3, 1.0 if pace != "and stays" else 6.0))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(until_s - time.monotonic()):
            while part := await reader.read(64 if pace == "and reads slowly" else 65_536):
                answer += part
                if pace == "and reads slowly":
                    await asyncio.sleep(0.02)
    return answer


async def attack(seed: int, number: int, ports: dict[str, int], report: Report) -> None:
    """One client: case after case, each from its own part of the seed."""
    turn = 0
    while True:
        rng = random.Random(f"{seed}/{number}/{turn}")
        turn += 1
        name, pace, port = rng.choice([*CASES]), rng.choice(PACES), rng.choice([*ports])
        report.cases[f"{name} {pace}"] += 1
        with contextlib.suppress(OSError):
            streams = await connect(ports[port], f"127.0.1.{number + 1}")
            try:
                answer = await send(rng, CASES[name](rng), pace, streams)
            finally:
                streams[1].transport.abort()
            statuses = [status.decode() for status in _STATUS.findall(answer)]
            report.statuses.update(statuses)
            if "500" in statuses:
                report.errors.append(f"500 on the {port} port in case {number}/{turn - 1}: {name} {pace}")
        await asyncio.sleep(0.005)


async def probe(port: int, process: int, report: Report) -> None:
    """Ask `/livez` over new connections, as the kubelet does, and look at the memory of the ports."""
    while True:
        began_s, began_ready_s = time.monotonic(), ready_s(process)
        try:
            async with asyncio.timeout(_WAIT_S):
                reader, writer = await connect(port, "127.0.0.1")
                writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError) as error:
            answer = type(error).__name__.encode()
        if not answer.startswith(b"HTTP/1.1 200 "):
            report.errors.append(f"a probe was not answered: {answer[:80]!r}")
        report.probes_s.append(time.monotonic() - began_s)
        waited_s = [now - began for now, began in zip(ready_s(process), began_ready_s, strict=True)]
        report.ready_s.append(max(waited_s))
        report.highest_bytes = max(report.highest_bytes, resident_bytes(process))
        await asyncio.sleep(PROBE_GAP_S)


def ready_s(process: int) -> list[float]:
    """How long the ports, and their clients, have been ready to go on and waited for a CPU."""
    files = (Path(f"/proc/{number}/schedstat") for number in (process, "self"))
    return [int(file.read_text(encoding="ascii").split()[1]) / 1e9 for file in files]


def resident_bytes(process: int) -> int:
    """The memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


class _Errors(logging.Handler):
    """Keeps the errors that are logged, but for those that aiohttp logs of a request that is none."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            self.lines.append(self.format(record)[-1_000:])


async def serve() -> None:
    """Both ports, until standard input ends; prints their numbers, and at the end what they logged and still have."""
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    registry = CollectorRegistry()
    metric = Metric("conversation_fuzzed_total", "Help.", ("partition",), registry=registry)
    for partition in range(500):  # a text that a slow reader does not get at once
        metric.labels(partition)
    admin = AdminServer(registry, lambda: {"lanes": None}, dict, lambda _: None)
    async with serving() as site:
        ports = {"admin": await admin.start("127.0.0.1", 0), "query": site.port}
        tasks = len(asyncio.all_tasks())
        print(json.dumps(ports), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        until_s = time.monotonic() + _QUIET_S
        while time.monotonic() < until_s and len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.1)
        left = [str(task.get_coro()) for task in asyncio.all_tasks()][tasks:]
        connections = admin._server.connections + site.server._server.connections
        print(json.dumps({"logged": errors.lines, "tasks": left, "connections": connections}), flush=True)
        await admin.stop()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[dict[str, int], int, Callable[[], Awaitable[Any]]]]:
    """The ports in their process: their numbers, its id, and a function that ends them and returns what they say."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.web.fuzz", "--serve", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None

    async def finish() -> Any:
        out, _ = await process.communicate(b"\n")
        return json.loads(out.splitlines()[-1])  # behind what the service logs

    try:
        yield json.loads(await process.stdout.readline()), process.pid, finish
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def fuzz(seed: int, is_enough: Callable[[Report], bool], late_s: float) -> Report:
    """Attack until it is enough; the report's errors are empty if all is well."""
    report = Report()
    async with served() as (ports, process, finish):
        for port in (*ports.values(),) * 3:  # what is imported and cached with the first requests is no growth
            for path in (b"/metrics", b"/", b"/login"):
                reader, writer = await connect(port, "127.0.0.1")
                token = TOKEN.encode()
                writer.write(b"GET %s HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % (path, token))
                await reader.read()
                writer.close()
        before_bytes = resident_bytes(process)
        tasks = [asyncio.create_task(attack(seed, number, ports, report)) for number in range(CLIENTS)]
        tasks.append(asyncio.create_task(probe(ports["admin"], process, report)))
        while not is_enough(report) and not any(task.done() for task in tasks):
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                report.errors.append(f"a client failed: {outcome!r}")
        said = await finish()
    report.errors += [f"logged: {line}" for line in said["logged"]]
    report.errors += [f"a task that does not end: {task}" for task in said["tasks"]]
    if said["connections"]:
        report.errors.append(f"{said['connections']} connections outlived their clients")
    grown = report.highest_bytes - before_bytes
    if grown > GROWTH_BYTES_MAX:
        report.errors.append(f"memory grew by {grown >> 20} MiB, more than {GROWTH_BYTES_MAX >> 20}")
    late = [taken for taken, waited in zip(report.probes_s, report.ready_s, strict=True) if taken - waited > late_s]
    if late:
        report.errors.append(
            f"{len(late)} of {len(report.probes_s)} probes took more than {late_s:g} s of CPU and waits"
        )
    times_ms = sorted(seconds * 1_000 for seconds in report.probes_s)
    print(
        f"seed {seed}: {report.cases.total()} cases from {CLIENTS} addresses\n"
        f"answers: {dict(sorted(report.statuses.items()))}\n"
        f"probes: {len(times_ms)}, median {median(times_ms):.0f} ms, "
        f"99 of 100 within {times_ms[len(times_ms) * 99 // 100]:.0f} ms, slowest {times_ms[-1]:.0f} ms, "
        f"{sum(report.ready_s) / max(sum(report.probes_s), 0.001):.0%} of it for want of a CPU\n"
        f"memory: {before_bytes / (1 << 20):.1f} MiB, and {grown / (1 << 20):.1f} MiB more at most"
    )
    return report


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        asyncio.run(serve())
        return
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of what is sent after the other side has gone
    print(f"seed {chosen.seed}", flush=True)
    until_s = time.monotonic() + chosen.minutes * 60
    report = asyncio.run(fuzz(chosen.seed, lambda _: time.monotonic() > until_s, LATE_S))
    for name, count in sorted(report.cases.items()):
        print(f"{count:8} {name}")
    for error, count in Counter(report.errors).most_common(20):
        print(f"{count} times: {error}")
    sys.exit(1 if report.errors else 0)


if __name__ == "__main__":
    main()
