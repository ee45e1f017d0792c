"""Tokens for client credentials, from a token endpoint in this process: when it is asked, and how often."""

import asyncio
import base64
import contextlib
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka import client_credentials
from consumer.kafka.client_credentials import TokenEndpoint, renewal_delay_s, retry_delay_s, share_endpoint
from consumer.kafka.connection import connection_arguments, diagnose_connection, find_connection_error
from consumer.kafka.errors import Renewable, TokenAwaited
from consumer.kafka.token_answers import TokenNotIssuedError
from consumer.settings import Settings
from consumer.worker.ports import RetriableError
from tests.kafka.refusing_broker import refusing_broker
from tests.live.authority import Authority
from tests.live.tokens import put

SECRET = "hunter2-m\u00e4rk:ed +&="
CLIENT = "client:1 %2B"
WITHIN_S = 60
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """Issues `token-1`, `token-2` and so on, or whatever its `handler` does instead."""

    def __init__(self) -> None:
        self.handler: Handler = self.issue
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        """Client, secret and form of each."""
        self.under_way = self.under_way_most = 0
        self.url = ""

    async def issue(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "access_token": f"token-{len(self.requests)}",
                "token_type": "Bearer",
                "expires_in": 600,
            }
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        scheme, _, credentials = request.headers["Authorization"].partition(" ")
        assert scheme == "Basic"
        client, _, secret = base64.b64decode(credentials).decode().partition(":")
        self.requests.append((unquote_plus(client), unquote_plus(secret), dict(await request.post())))
        self.under_way += 1
        self.under_way_most = max(self.under_way_most, self.under_way)
        try:
            return await self.handler(request)
        finally:
            self.under_way -= 1

    @asynccontextmanager
    async def running(self, **site: Any) -> AsyncIterator["Endpoint"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, **site).start()
            host = "https://localhost" if site else "http://127.0.0.1"
            self.url = f"{host}:{runner.addresses[0][1]}/token"
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().running() as endpoint:
        yield endpoint


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    put(tmp_path / "secret", f"{SECRET}\n")
    return tmp_path / "secret"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a provider does."""
    monkeypatch.setattr(client_credentials, "REQUEST_S", WITHIN_S)


@pytest.fixture
def hastened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Requests follow each other without delay; the list has the failures in a row after each failure."""
    failures: list[int] = []

    def retry_at_once(count: int, _: float) -> float:
        failures.append(count)
        return 0.01

    monkeypatch.setattr(client_credentials, "renewal_delay_s", lambda *_: 0.01)
    monkeypatch.setattr(client_credentials, "retry_delay_s", retry_at_once)
    return failures


def provider_of(endpoint: Endpoint, secret: Path, scope: str = "", ca_file: str = "", **more: Any) -> TokenEndpoint:
    return TokenEndpoint(endpoint.url, CLIENT, str(secret), scope, ca_file, **more)


def settings_of(url: str, secret: Path, **changed: Any) -> Settings:
    return Settings(
        **{
            "bootstrap_servers": "127.0.0.1:9092",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_endpoint": url,
            "sasl_oauth_client_id": CLIENT,
            "sasl_oauth_client_secret_file": str(secret),
            **changed,
        }
    )


async def failure_of(provider: TokenEndpoint) -> TokenNotIssuedError:
    with pytest.raises(TokenNotIssuedError) as raised:
        await asyncio.wait_for(provider.token(), WITHIN_S)
    assert SECRET not in repr(raised.value)
    return raised.value


async def issued(provider: TokenEndpoint) -> str:
    """Wait until there is a token."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(TokenNotIssuedError):
                return await provider.token()
            await asyncio.sleep(0.01)


async def asked(endpoint: Endpoint, times: int) -> None:
    """Wait for so many more requests."""
    before = len(endpoint.requests)
    async with asyncio.timeout(WITHIN_S):
        while len(endpoint.requests) < before + times:
            await asyncio.sleep(0.01)


async def refuse(_: web.Request) -> web.Response:
    """A handler of a provider that has no answer."""
    return web.Response(status=503)


@given(st.floats(1, 86_400), st.floats(0, 1))
def test_token_is_renewed_after_70_to_80_percent_of_its_lifetime(lifetime_s: float, jitter: float) -> None:
    assert 0.7 <= renewal_delay_s(lifetime_s, jitter) / lifetime_s <= 0.8 + 1e-9
    assert renewal_delay_s(600, 0) == 480
    assert renewal_delay_s(600, 1) == pytest.approx(420)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_retries_are_bounded_and_jittered(failures: int, jitter: float) -> None:
    assert retry_delay_s(failures, 0) / 2 <= retry_delay_s(failures, jitter) <= 30
    assert [retry_delay_s(count, 0) for count in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert retry_delay_s(1, 1) == 0.5


@pytest.mark.parametrize("scope", ["", "kafka write"])
async def test_request_authenticates_the_client(endpoint: Endpoint, secret: Path, scope: str) -> None:
    """Client id and secret may have any character: they are encoded first (RFC 6749, section 2.3.1)."""
    assert await provider_of(endpoint, secret, scope).token() == "token-1"
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    assert endpoint.requests == [(CLIENT, SECRET, form)]


async def test_all_clients_share_one_request(endpoint: Endpoint, secret: Path) -> None:
    settings = settings_of(endpoint.url, secret)
    providers = [connection_arguments(settings)["sasl_oauth_token_provider"] for _ in range(20)]
    tokens = await asyncio.gather(*(provider.token() for provider in providers))
    assert set(tokens) == {"token-1"}
    assert len(endpoint.requests) == 1
    other = share_endpoint(settings_of(endpoint.url, secret, sasl_oauth_scope="another"))
    assert await other.token() == "token-2"


@pytest.mark.usefixtures("hastened")
async def test_token_is_renewed_while_it_is_valid(endpoint: Endpoint, secret: Path) -> None:
    """Without a call that asks for one, and by one request at a time."""
    provider = provider_of(endpoint, secret)
    assert await provider.token() == "token-1"
    await asked(endpoint, 5)
    assert endpoint.under_way_most == 1
    assert await provider.token() != "token-1"


async def test_last_token_is_used_until_it_expires(
    endpoint: Endpoint, secret: Path, hastened: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """While the provider has no answer; then there is none, without a request for each call, until it answers again."""
    clock = [0.0]
    provider = provider_of(endpoint, secret, monotonic_s=lambda: clock[0])
    assert await provider.token() == "token-1"
    endpoint.handler = refuse
    await asked(endpoint, 3)
    clock[0] = 598.9
    assert await provider.token() == "token-1"
    clock[0] = 599.1
    failures = [await failure_of(provider) for _ in range(1_000)]
    assert all(failure.is_transient for failure in failures)
    assert len(list(traceback.walk_tb(failures[-1].__traceback__))) < 20  # that of one call, not of all
    assert len(endpoint.requests) < 500
    endpoint.handler = endpoint.issue
    assert await issued(provider) != "token-1"
    endpoint.handler = refuse
    await asked(endpoint, 2)
    logged = capsys.readouterr().out
    assert logged.count("oauth.renewal_failed") == 2
    assert logged.count("oauth.token_renewed") == 1
    assert "token-" not in logged
    assert hastened[:3] == [1, 2, 3]
    assert hastened.count(1) == 2  # a success sets the count of failures to zero


async def test_call_waits_for_the_request_that_is_under_way(
    endpoint: Endpoint, secret: Path, hastened: list[int]
) -> None:
    """It may have begun before the last token expired."""
    clock, answering = [0.0], asyncio.Event()

    async def answer_late(request: web.Request) -> web.Response:
        await answering.wait()
        return await endpoint.issue(request)

    provider = provider_of(endpoint, secret, monotonic_s=lambda: clock[0])
    assert await provider.token() == "token-1"
    endpoint.handler, clock[0] = answer_late, 500.0
    await asked(endpoint, 1)
    calls = [asyncio.create_task(provider.token()) for _ in range(2)]
    await asyncio.sleep(0)
    assert [call.done() for call in calls] == [True, True]
    clock[0] = 600.0
    calls = [asyncio.create_task(provider.token()) for _ in range(2)]
    await asyncio.sleep(0)
    assert [call.done() for call in calls] == [False, False]
    answering.set()
    assert "token-1" not in await asyncio.gather(*calls)
    assert hastened == []


@pytest.mark.usefixtures("hastened")
async def test_wrong_secret_is_replaced_without_a_restart(endpoint: Endpoint, secret: Path) -> None:
    async def check_secret(request: web.Request) -> web.Response:
        if endpoint.requests[-1][1] == "hunter2-new":
            return await endpoint.issue(request)
        return web.json_response({"error": "invalid_client", "error_description": SECRET}, status=401)

    endpoint.handler = check_secret
    provider = provider_of(endpoint, secret)
    failure = await failure_of(provider)
    assert not failure.is_transient
    assert "check CC_SASL_OAUTH_CLIENT_ID and the secret" in failure.args[0]
    put(secret, "hunter2-new")
    assert (await issued(provider)).startswith("token-")


async def test_request_is_bounded_in_time(endpoint: Endpoint, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_credentials, "REQUEST_S", 0.2)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(WITHIN_S)
        raise AssertionError

    endpoint.handler = hang
    failure = await failure_of(provider_of(endpoint, secret))
    assert failure.is_transient
    assert "cannot be reached: TimeoutError" in failure.args[0]


async def test_answer_is_bounded_in_size(endpoint: Endpoint, secret: Path) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    endpoint.handler = stream
    failure = await failure_of(provider_of(endpoint, secret))
    assert "the answer is larger than 131072 bytes" in failure.args[0]


async def test_redirection_is_not_followed(endpoint: Endpoint, secret: Path) -> None:
    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    endpoint.handler = redirect
    assert "refused the request (307)" in (await failure_of(provider_of(endpoint, secret))).args[0]
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "CC_SASL_OAUTH_CLIENT_SECRET_FILE: cannot use '"),
        (b" \n", "the file of CC_SASL_OAUTH_CLIENT_SECRET_FILE is empty"),
        (b"\xff" + SECRET.encode(), "UnicodeDecodeError"),
        (b"x" * 4_097, "it is larger than 4096 bytes"),
    ],
)
async def test_unusable_secret_is_named_and_not_sent(
    endpoint: Endpoint, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    failure = await failure_of(provider_of(endpoint, file))
    assert (failure.is_transient, endpoint.requests) == (False, [])
    assert says in failure.args[0]


async def test_secret_in_the_place_of_its_file_is_not_shown(endpoint: Endpoint) -> None:
    assert "cannot use the file it names" in (await failure_of(provider_of(endpoint, Path(SECRET)))).args[0]


async def test_provider_has_to_be_trusted(secret: Path, tmp_path: Path) -> None:
    """The secret is sent over TLS to a host of a trusted authority, and to no other."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for host, expired, ca_file, is_transient, says in (
        ("localhost", False, other.ca_file, False, "CC_SASL_OAUTH_CA_FILE"),
        ("elsewhere", False, ours.ca_file, False, "a host that the certificate has"),
        ("localhost", True, ours.ca_file, True, "have it renewed"),
        ("localhost", False, tmp_path / "none.pem", False, "CC_SASL_OAUTH_CA_FILE: cannot use '"),
    ):
        issued = ours.issue("provider", host, expired=expired)
        context.load_cert_chain(issued.cert_file, issued.key_file)
        async with Endpoint().running(ssl_context=context) as endpoint:
            failure = await failure_of(provider_of(endpoint, secret, ca_file=str(ca_file)))
            assert (failure.is_transient, endpoint.requests) == (is_transient, [])
            assert says in failure.args[0]
    issued = ours.issue("provider", "localhost")
    context.load_cert_chain(issued.cert_file, issued.key_file)
    async with Endpoint().running(ssl_context=context) as endpoint:
        assert await provider_of(endpoint, secret, ca_file=str(ours.ca_file)).token() == "token-1"


async def test_operator_learns_why_there_is_no_token(secret: Path, endpoint: Endpoint) -> None:
    """A provider that is away heals, as brokers that are away do; a refused client is for the operator."""
    with refusing_broker() as address:
        away = settings_of("http://127.0.0.1:1/token", secret, bootstrap_servers=address)
        error = await find_connection_error(away)
        assert isinstance(error, TokenAwaited)
        diagnosed = await diagnose_connection(away, RetriableError("it cannot bootstrap"))
        assert isinstance(diagnosed, TokenAwaited)
        assert str(diagnosed) == (
            f"connecting to {address}: CC_SASL_OAUTH_TOKEN_ENDPOINT: the provider cannot be reached: "
            f"ConnectionRefusedError"
        )

        async def refuse_client(_: web.Request) -> web.Response:
            return web.Response(status=401)

        endpoint.handler = refuse_client
        refused = await find_connection_error(settings_of(endpoint.url, secret, bootstrap_servers=address))
        assert isinstance(refused, Renewable)
        assert "the provider refused the client (401)" in str(refused)
        endpoint.handler = endpoint.issue
        unknown = settings_of(endpoint.url, secret, bootstrap_servers=address, sasl_oauth_scope="another")
        refused = await find_connection_error(unknown)
        assert isinstance(refused, Renewable)
        assert "the broker refused the token of CC_SASL_OAUTH_TOKEN_ENDPOINT: check its issuer" in str(refused)


def test_provider_outlives_an_event_loop(secret: Path) -> None:
    """A command may run several, one after the other."""

    async def ask(provider: TokenEndpoint | None = None) -> TokenEndpoint:
        async with Endpoint().running() as endpoint:
            provider = provider or provider_of(endpoint, secret)
            provider._url, provider._expires_s = endpoint.url, 0.0
            assert {await provider.token(), await provider.token()} == {"token-1"}
        return provider

    provider = asyncio.run(ask())
    asyncio.run(ask(provider))
