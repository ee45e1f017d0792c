"""The admin port: probes and metrics over HTTP, without any customer data."""

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

from consumer.telemetry.labels import Refusal
from consumer.web.bounded_http import BoundedServer, Bounds, Kind

Checks = Callable[[], dict[str, str | None]]
"""Returns checks by name: None if all is well, else a sentence with the problem."""

_LIVE: Final = "/livez"
_READY: Final = "/readyz"
_BODY_BYTES_MAX: Final = 1_024
_EOF: Final = b"# EOF\n"
_COST_SHARE: Final = 0.1
"""Share of the loop's time that all scrapes together may take."""


class AdminServer:
    """Serves `/livez`, `/readyz` and `/metrics` on the worker's loop: an answer shows that the loop turns."""

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
                web.get(_LIVE, _probe(live)),
                web.get(_READY, _probe(ready)),
                web.get("/metrics", self._metrics),
            ]
        )
        self._server = BoundedServer(app, on_refused, bounds or Bounds(), _kind_of)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0. Raises OSError if the address cannot be bound."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        await self._server.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._exposition.text(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Exposition:
    """The text of all metrics, encoded in slices, and served again for a time in proportion to its cost.

    So scrapes take at most `_COST_SHARE` of the loop, and a text is at most some tenths of a second old.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._encoding = asyncio.Lock()
        self._last: tuple[str, bytes] = "", b""
        """The content type and the text of the last scrape."""
        self._fresh_until_s = 0.0

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, as an Accept header asks for them."""
        encode, content_type = _encoder(accept)
        async with self._encoding:
            fresh_s = self._fresh_until_s - time.monotonic()
            if fresh_s > 0 and self._last[0] == content_type:
                return self._last[1], content_type
            await asyncio.sleep(max(0.0, fresh_s))
            parts, spent_s = [], 0.0
            started_s = time.perf_counter()
            for family in self._registry.collect():
                parts.append(encode(_Family(family)).removesuffix(_EOF))
                spent_s += time.perf_counter() - started_s
                await asyncio.sleep(0)
                started_s = time.perf_counter()
            body = b"".join([*parts, _EOF] if "openmetrics" in content_type else parts)
            self._last = content_type, body
            self._fresh_until_s = time.monotonic() + spent_s / _COST_SHARE
            return body, content_type


class _Family(Collector):
    """A registry of one family, since the encoders need a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """The family."""
        yield self._family


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder for an Accept header, and its content type; the plain one if the header is not valid."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # prometheus_client compares versions that are not numbers
        return choose_encoder("")


def _kind_of(request: web.Request) -> Kind:
    return "probe" if request.path in {_LIVE, _READY} else "ordinary"


def _probe(checks: Checks) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        problems = checks()
        healthy = all(problem is None for problem in problems.values())
        body = json.dumps({name: "ok" if problem is None else problem for name, problem in problems.items()})
        return web.Response(text=body, status=200 if healthy else 503, content_type="application/json")

    return handle
