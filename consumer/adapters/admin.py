"""The admin port: probes and metrics over HTTP, and nothing of any customer."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Checks = Callable[[], dict[str, str | None]]
"""Named checks: None where all is well, else a sentence on what is not."""

_REQUEST_BYTES_MAX: Final = 1_024
_LINE_BYTES_MAX: Final = 4_096
_KEEPALIVE_S: Final = 75.0
"""Longer than the usual scrape interval, so that a scraper keeps its connection."""
_LINGER_S: Final = 1.0
_STOP_S: Final = 2.0


class AdminServer:
    """Serves `/livez`, `/readyz` and `/metrics` on the worker's loop: that it answers shows that the loop turns."""

    def __init__(self, registry: CollectorRegistry, live: Checks, ready: Checks) -> None:
        self._registry = registry
        app = web.Application(client_max_size=_REQUEST_BYTES_MAX)
        app.add_routes(
            [
                web.get("/livez", _probe(live)),
                web.get("/readyz", _probe(ready)),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
            lingering_time=_LINGER_S,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            shutdown_timeout=_STOP_S,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one if 0 was asked for. Raises OSError if it cannot."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _probe(checks: Checks) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        found = checks()
        healthy = all(problem is None for problem in found.values())
        body = json.dumps({name: "ok" if problem is None else problem for name, problem in found.items()})
        return web.Response(text=body, status=200 if healthy else 503, content_type="application/json")

    return handle
