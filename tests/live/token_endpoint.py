"""A provider of tokens in a process of its own, with one client: `python -m tests.live.token_endpoint FOLDER PORT`.

It issues signed tokens for client credentials over TLS, and refuses as RFC 6749 has it (sections 2.3.1, 4.4 and 5).
"""

import asyncio
import base64
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Self
from urllib.parse import unquote_plus

from aiohttp import web

from tests.live.authority import Authority
from tests.live.commands import WAIT_S
from tests.live.tokens import TokenIssuer, put
from tests.sockets import find_free_ports

_NO_STORE = {"Cache-Control": "no-store"}


class TokenProvider:
    """The process: entering starts it, and leaving ends it."""

    def __init__(self, folder: Path, authority: Authority, issuer: TokenIssuer, client_id: str, secret: str) -> None:
        self._folder = folder
        (self._port,) = find_free_ports(1)
        self._process: asyncio.subprocess.Process | None = None
        self._client = {"id": client_id, "secret": secret, "scope": "kafka", "lifetime_s": 600.0}
        authority.issue("provider", "localhost").both_file.rename(folder / "provider.pem")
        (folder / "signing.pem").write_bytes(issuer.to_pem())
        self.change()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}/token"

    def change(self, **client: str | float) -> None:
        """Change the client's `id`, `secret`, `scope`, or the `lifetime_s` of its tokens."""
        self._client |= client
        put(self._folder / "client.json", json.dumps(self._client))

    def answers(self) -> list[tuple[float, int]]:
        """When each request was answered, in seconds, and with which status."""
        lines = [line.split() for line in (self._folder / "answers").read_text().splitlines()]
        return [(float(answered_s), int(status)) for answered_s, status in lines]

    async def start(self) -> None:
        """Start the process, and wait until it accepts connections."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.live.token_endpoint", str(self._folder), str(self._port),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), WAIT_S) == b"ready\n"

    async def stop(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _answer(
    folder: Path, issuer: TokenIssuer, authorization: str, form: dict[str, str]
) -> tuple[int, dict[str, object]]:
    """The status and the document of an answer."""
    client = json.loads((folder / "client.json").read_text())
    name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    if (unquote_plus(name), unquote_plus(secret)) != (client["id"], client["secret"]):
        return 401, {"error": "invalid_client", "error_description": f"not {authorization}"}
    if form.get("grant_type") != "client_credentials":
        return 400, {"error": "unsupported_grant_type"}
    if form.get("scope") != client["scope"]:
        return 400, {"error": "invalid_scope"}
    token = issuer.token(client["id"], client["lifetime_s"])
    return 200, {"access_token": token, "token_type": "Bearer", "expires_in": client["lifetime_s"]}


async def _serve(folder: Path, port: int) -> None:
    issuer = TokenIssuer((folder / "signing.pem").read_bytes())

    async def issue(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        status, document = _answer(folder, issuer, request.headers["Authorization"], form)
        with (folder / "answers").open("a") as log:
            log.write(f"{time.monotonic()} {status}\n")
        return web.json_response(document, status=status, headers=_NO_STORE)

    app = web.Application()
    app.router.add_post("/token", issue)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "provider.pem")
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
