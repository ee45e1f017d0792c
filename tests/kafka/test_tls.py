"""Certificates that are renewed on disk, at a real TLS server in this process."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.environment import parse
from consumer.kafka.tls import find_remedy, is_outdated, load_context
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError
from tests.live.authority import Authority, Issued

WITHIN_S = 60


class Server:
    """Accepts the clients of one authority, and keeps their certificates."""

    def __init__(self, authority: Authority) -> None:
        self.certificates: list[bytes | None] = []
        self.port = 0
        self._issued = authority.issue("server", "localhost")
        self._authority = authority

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._issued.cert_file, self._issued.key_file)
        context.load_verify_locations(self._authority.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.certificates.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(b"hello")
        await reader.read()
        writer.close()


async def greet(server: Server, context: ssl.SSLContext) -> bytes:
    """What the server sends to a new connection. Raises ssl.SSLError."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        try:
            return await reader.readexactly(5)
        finally:
            writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def make_settings(authority: Authority, issued: Issued, key_password: str = "") -> Settings:
    return Settings(
        bootstrap_servers="localhost",
        security_protocol="SSL",
        ssl_ca_file=str(authority.ca_file),
        ssl_cert_file=str(issued.cert_file),
        ssl_key_file=str(issued.key_file),
        ssl_key_password=key_password,
    )


def read_certificate(issued: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.cert_file.read_text())


async def test_new_connection_uses_the_renewed_certificate(authority: Authority) -> None:
    first = authority.issue("client", key_password="one")
    before = read_certificate(first)
    context = load_context(make_settings(authority, first, "one"))
    async with Server(authority).running() as server:
        assert await greet(server, context) == b"hello"
        renewed = authority.issue("client", key_password="one")
        assert await greet(server, context) == b"hello"
    assert server.certificates == [before, read_certificate(renewed)]
    assert before != read_certificate(renewed)


async def test_new_connection_trusts_an_added_authority(authority: Authority, tmp_path: Path) -> None:
    ours = authority.issue("client")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path, "another").ca_file.read_bytes())
    context = load_context(Settings(
        bootstrap_servers="localhost", ssl_ca_file=str(trusted), ssl_cert_file=str(ours.cert_file),
        ssl_key_file=str(ours.key_file),
    ))  # fmt: skip
    async with Server(authority).running() as server:
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await greet(server, context)
        assert "CC_SSL_CA_FILE" in (find_remedy(refused.value) or "")
        trusted.write_bytes(trusted.read_bytes() + authority.ca_file.read_bytes())
        assert await greet(server, context) == b"hello"


async def test_encrypted_key_is_read_with_its_password(authority: Authority, tmp_path: Path) -> None:
    """PKCS#8, with the password from a file. A wrong password is an error, and so is none: no terminal is asked."""
    issued = authority.issue("client", key_password="hunter2-key")
    assert issued.key_file.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    password = tmp_path / "password"
    environ = {
        "CC_BOOTSTRAP_SERVERS": "localhost",
        "CC_SSL_CA_FILE": str(authority.ca_file),
        "CC_SSL_CERT_FILE": str(issued.cert_file),
        "CC_SSL_KEY_FILE": str(issued.key_file),
        "CC_SSL_KEY_PASSWORD_FILE": str(password),
    }
    for wrong in ("hunter2-wrong", ""):
        password.write_text(wrong)
        with pytest.raises(ConfigurationError, match="CC_SSL_KEY_PASSWORD") as refused:
            load_context(parse(environ, lambda path: Path(path).read_text()))
        assert "hunter2" not in str(refused.value)
    password.write_text("hunter2-key\n")
    async with Server(authority).running() as server:
        assert await greet(server, load_context(parse(environ, lambda path: Path(path).read_text()))) == b"hello"
    assert server.certificates == [read_certificate(issued)]


@pytest.mark.parametrize("damage", ["half", "gone"])
async def test_unusable_files_leave_the_last_ones_in_use(
    authority: Authority, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a certificate that was replaced before its key. One log line reports it until a file changes again."""
    issued = authority.issue("client")
    before, key = read_certificate(issued), issued.key_file.read_bytes()
    context = load_context(make_settings(authority, issued))
    async with Server(authority).running() as server:
        issued = authority.issue("client")
        renewed_key = issued.key_file.read_bytes()
        if damage == "half":
            issued.key_file.write_bytes(key)
        else:
            issued.key_file.unlink()
        assert [await greet(server, context) for _ in range(2)] == [b"hello"] * 2
        assert capsys.readouterr().out.count("tls.files_unusable") == 1
        issued.key_file.write_bytes(renewed_key)
        assert await greet(server, context) == b"hello"
    assert server.certificates == [before, before, read_certificate(issued)]


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
def test_every_failed_verification_has_a_remedy(verify_code: int, is_time: bool, says: str) -> None:  # noqa: FBT001 - a column of the table
    error = ssl.SSLCertVerificationError()
    error.verify_code = verify_code
    assert is_outdated(error) is is_time
    assert says in (find_remedy(error) or "")


def test_other_tls_errors_have_no_remedy() -> None:
    assert find_remedy(ssl.SSLError(1, "wrong version number")) is None
