"""Certificates that are renewed on disk, against a real TLS server of this process."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.adapters.kafka.tls import context, is_time_fault, remedy
from consumer.runtime.settings import Settings
from tests.live.authority import Authority, Issued

WITHIN_S = 60


class Server:
    """Takes clients of one authority at a time, and tells which certificate each of them showed."""

    def __init__(self, authority: Authority) -> None:
        self.shown: list[bytes | None] = []
        self.port = 0
        self._issued = authority.issue("server", "localhost")
        self._authority = authority

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        asks = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        asks.load_cert_chain(self._issued.cert_file, self._issued.key_file)
        asks.load_verify_locations(self._authority.ca_file)
        asks.verify_mode = ssl.CERT_REQUIRED
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=asks) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(b"hello")
        await reader.read()
        writer.close()


async def greeted(server: Server, with_context: ssl.SSLContext) -> bytes:
    """Connect once. Raises ssl.SSLError."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=with_context, server_hostname="localhost"
        )
        try:
            return await reader.readexactly(5)
        finally:
            writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def secured(authority: Authority, issued: Issued, key_password: str = "") -> Settings:
    return Settings(
        bootstrap_servers="localhost",
        security_protocol="SSL",
        ssl_ca_file=str(authority.ca_file),
        ssl_cert_file=str(issued.cert_file),
        ssl_key_file=str(issued.key_file),
        ssl_key_password=key_password,
    )


def shown(issued: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.cert_file.read_text())


async def test_a_new_connection_shows_the_certificate_that_is_there_then(authority: Authority) -> None:
    first = authority.issue("client", key_password="one")
    before = shown(first)
    held = context(secured(authority, first, "one"))
    async with Server(authority).running() as server:
        assert await greeted(server, held) == b"hello"
        renewed = authority.issue("client", key_password="one")
        assert await greeted(server, held) == b"hello"
    assert server.shown == [before, shown(renewed)]
    assert before != shown(renewed)


async def test_an_authority_that_is_added_is_trusted_by_new_connections(authority: Authority, tmp_path: Path) -> None:
    ours = authority.issue("client")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path, "another").ca_file.read_bytes())
    held = context(Settings(
        bootstrap_servers="localhost", ssl_ca_file=str(trusted), ssl_cert_file=str(ours.cert_file),
        ssl_key_file=str(ours.key_file),
    ))  # fmt: skip
    async with Server(authority).running() as server:
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await greeted(server, held)
        assert "CC_SSL_CA_FILE" in (remedy(refused.value) or "")
        trusted.write_bytes(trusted.read_bytes() + authority.ca_file.read_bytes())
        assert await greeted(server, held) == b"hello"


@pytest.mark.parametrize("damage", ["half", "gone"])
async def test_files_that_cannot_be_used_leave_the_last_ones_in_use(
    authority: Authority, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a certificate that is there before its key. It is told once, and not again until something changes."""
    issued = authority.issue("client")
    before, key = shown(issued), issued.key_file.read_bytes()
    held = context(secured(authority, issued))
    async with Server(authority).running() as server:
        issued = authority.issue("client")
        renewed_key = issued.key_file.read_bytes()
        if damage == "half":
            issued.key_file.write_bytes(key)
        else:
            issued.key_file.unlink()
        assert [await greeted(server, held) for _ in range(2)] == [b"hello"] * 2
        assert capsys.readouterr().out.count("tls.files_unusable") == 1
        issued.key_file.write_bytes(renewed_key)
        assert await greeted(server, held) == b"hello"
    assert server.shown == [before, before, shown(issued)]


@pytest.mark.parametrize(
    ("verify_code", "is_time", "says"),
    [
        (9, True, "not valid yet"),
        (10, True, "has expired"),
        (18, False, "CC_SSL_CA_FILE"),
        (20, False, "CC_SSL_CA_FILE"),
        (62, False, "CC_BOOTSTRAP_SERVERS"),
        (64, False, "advertised.listeners"),
    ],
)
def test_each_way_not_to_be_verified_has_its_remedy(verify_code: int, is_time: bool, says: str) -> None:  # noqa: FBT001 - a column of the table
    error = ssl.SSLCertVerificationError()
    error.verify_code = verify_code
    assert is_time_fault(error) is is_time
    assert says in (remedy(error) or "")


def test_an_error_that_no_certificate_is_to_blame_for_has_none() -> None:
    assert remedy(ssl.SSLError(1, "wrong version number")) is None
