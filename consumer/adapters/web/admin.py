"""The admin port: probes and metrics over HTTP, and nothing of any customer."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from consumer.adapters.web.bounded_http import BoundedServer, Bounds, Refusal

Checks = Callable[[], dict[str, str | None]]
"""Named checks: None where all is well, else a sentence on what is not."""

_BODY_BYTES_MAX: Final = 1_024
_EOF: Final = b"# EOF\n"
_COST_SHARE: Final = 0.1
"""Share of the loop's time that scrapes may take, however many there are."""


class AdminServer:
    """Serves `/livez`, `/readyz` and `/metrics` on the worker's loop: that it answers shows that the loop turns."""

    def __init__(
        self,
        registry: CollectorRegistry,
        live: Checks,
        ready: Checks,
        on_refused: Callable[[Refusal], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._exposition = _Exposition(registry)
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/livez", _probe(live)),
                web.get("/readyz", _probe(ready)),
                web.get("/metrics", self._metrics),
            ]
        )
        self._server = BoundedServer(app, on_refused, bounds or Bounds())

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one if 0 was asked for. Raises OSError if it cannot."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        await self._server.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._exposition.text(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Exposition:
    """The text of all metrics, made in slices, and given out again for a time in proportion to what it cost.

    So scrapes take at most `_COST_SHARE` of the loop, and a text is at most some tenths of a second old.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._making = asyncio.Lock()
        self._made: tuple[str, bytes] = "", b""
        """The last text, and its content type before it."""
        self._fresh_until_s = 0.0

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, as asked for by an Accept header."""
        encode, content_type = _encoder(accept)
        async with self._making:
            fresh_s = self._fresh_until_s - time.monotonic()
            if fresh_s > 0 and self._made[0] == content_type:
                return self._made[1], content_type
            await asyncio.sleep(max(0.0, fresh_s))
            parts, spent_s = [], 0.0
            started_s = time.perf_counter()
            for family in self._registry.collect():
                parts.append(encode(_Family(family)).removesuffix(_EOF))
                spent_s += time.perf_counter() - started_s
                await asyncio.sleep(0)
                started_s = time.perf_counter()
            body = b"".join([*parts, _EOF] if "openmetrics" in content_type else parts)
            self._made = content_type, body
            self._fresh_until_s = time.monotonic() + spent_s / _COST_SHARE
            return body, content_type


class _Family(Collector):
    """A registry of one family, as the encoders want one."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """The family."""
        yield self._family


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder for an Accept header, and its content type; the plain one for a header that cannot be read."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # prometheus_client compares versions that are no numbers
        return choose_encoder("")


def _probe(checks: Checks) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        found = checks()
        healthy = all(problem is None for problem in found.values())
        body = json.dumps({name: "ok" if problem is None else problem for name, problem in found.items()})
        return web.Response(text=body, status=200 if healthy else 503, content_type="application/json")

    return handle
