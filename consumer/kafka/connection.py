"""Connecting to Kafka: the arguments of any client, its first connection, and why there is none."""

import asyncio
import datetime as dt
import ipaddress
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import has_snappy, has_zstd
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from consumer import secret_files
from consumer.kafka import oauth, patches, tls
from consumer.kafka.client_credentials import share_endpoint
from consumer.kafka.errors import AUTHENTICATION, Expired, Renewable, TokenAwaited, call, map_error
from consumer.kafka.token_answers import TokenNotIssuedError
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError, RetriableError

_PROBE_S = 5.0
_ADDRESS = re.compile(r"(?:[\w.-]+|\[(?P<ipv6>[^\[\]]+)\])(?::(?P<port>[0-9]{1,5}))?")
_USER_INFO = re.compile(r"[^,/@]*@")
_PORT_MAX = 65_535
_CODECS = {"snappy": has_snappy, "zstd": has_zstd}


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client.

    Raises ConfigurationError if an address, a codec or a certificate cannot be used.
    """
    patches.install(settings.decompressed_bytes_max)
    _check_addresses(settings.bootstrap_servers)
    _check_codec(settings.compression)
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.group_id,
        "request_timeout_ms": settings.tuning.request_timeout_ms,
        "security_protocol": settings.security_protocol,
    }
    if settings.is_encrypted:
        arguments["ssl_context"] = tls.load_context(settings)
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            arguments["sasl_oauth_token_provider"] = (
                share_endpoint(settings)
                if settings.sasl_oauth_token_endpoint
                else oauth.TokenFile(settings.sasl_oauth_token_file)
            )
        else:
            arguments["sasl_plain_username"] = settings.sasl_username
            arguments["sasl_plain_password"] = settings.sasl_password
    return arguments


def _check_addresses(bootstrap_servers: str) -> None:
    """Refuse what makes aiokafka raise an error that is no KafkaError, or look up a host of that name."""
    if all(_is_address(address.strip()) for address in bootstrap_servers.split(",")):
        return
    redacted = _USER_INFO.sub("...@", bootstrap_servers)
    hint = ": leave out the protocol, CC_SECURITY_PROTOCOL sets it" if "://" in bootstrap_servers else ""
    raise ConfigurationError(f"CC_BOOTSTRAP_SERVERS: {redacted!r} is no list of `host:port` separated by commas{hint}")


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return _is_ipv6(text)
    if match["ipv6"] is not None and not _is_ipv6(match["ipv6"]):
        return False
    return match["port"] is None or 0 < int(match["port"]) <= _PORT_MAX


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_codec(compression: str) -> None:
    """Refuse a codec for which aiokafka's producer would raise a RuntimeError."""
    if compression != "none" and not _CODECS[compression]():
        raise ConfigurationError(
            f"CC_COMPRESSION={compression}: the codec is not installed: install the locked requirements (cramjam), or "
            f"set it to none"
        )


async def diagnose_connection(settings: Settings, error: ExternalError) -> ExternalError:
    """Find out why a client could not connect, which its `error` often hides.

    Returns a ConfigurationError for wrong credentials, else a RetriableError.
    """
    cause = await find_connection_error(settings)
    if isinstance(cause, ConfigurationError | Expired | TokenAwaited):
        return cause
    return RetriableError(
        f"{cause or error}: are CC_BOOTSTRAP_SERVERS and CC_SECURITY_PROTOCOL right, and does the broker run?"
    )


async def start(
    starting: Awaitable[None],
    settings: Settings,
    timeout_s: float,
    stop: Callable[[], Awaitable[None]],
    doing: str = "",
) -> None:
    """Wait for a client's first connection. If there is none in time, or the wait is cancelled, stop the client.

    `doing` is what was tried, if that is more than to connect. Raises ExternalError.
    """
    try:
        await call(timeout_s, starting, doing or f"connecting to {settings.bootstrap_servers}")
    except RetriableError as error:
        await stop()
        raise await diagnose_connection(settings, error) from error
    except BaseException:
        await stop()
        raise


async def connect_to_any(client: AIOKafkaClient) -> None:
    """Connect to any broker that can be reached. Raises KafkaConnectionError if there is none."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        if await client.ready(node):
            return
    if nodes:
        raise errors.KafkaConnectionError


async def find_connection_error(settings: Settings) -> ExternalError | None:
    """Why the cluster of CC_BOOTSTRAP_SERVERS cannot be used, None if it can.

    aiokafka only logs the cause, and then raises that it could not bootstrap, also when the password is wrong. It is
    enough that one of the addresses accepts a connection, if all the brokers that it names accept one too. Of several
    errors a ConfigurationError is returned.
    """
    addresses = [(host, port) for host, port, _ in collect_hosts(settings.bootstrap_servers)]
    probes = await asyncio.gather(*(_probe(settings, *address) for address in addresses))
    for brokers in probes:
        if not isinstance(brokers, ExternalError):
            others = [address for address in brokers if address not in addresses]
            probes = await asyncio.gather(*(_probe(settings, *address) for address in others))
            break
    failures = [probe for probe in probes if isinstance(probe, ExternalError)]
    return next((error for error in failures if isinstance(error, ConfigurationError)), next(iter(failures), None))


async def _probe(settings: Settings, host: str, port: int) -> list[tuple[str, int]] | ExternalError:
    """The addresses of all brokers that a broker knows, or why it cannot be connected to."""
    arguments = connection_arguments(settings)
    del arguments["bootstrap_servers"]
    doing = f"connecting to {host}:{port}"
    try:
        async with asyncio.timeout(_PROBE_S):
            connection = await create_conn(host, port, **arguments)
            try:
                metadata = await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except oauth.TokenUnusableError as error:
        file = secret_files.name_file(settings.sasl_oauth_token_file)
        return Renewable(
            f"{doing}: CC_SASL_OAUTH_TOKEN_FILE: cannot use {file}: {error.args[0]}: name a readable file that holds "
            f"one token"
        )
    except TokenNotIssuedError as error:
        return (TokenAwaited if error.is_transient else Renewable)(f"{doing}: {error.args[0]}")
    except AUTHENTICATION as error:
        if settings.sasl_mechanism == "OAUTHBEARER" and isinstance(error, errors.SaslAuthenticationFailed):
            return _diagnose_token(settings, doing)
        return map_error(error, doing)
    except (errors.KafkaError, TimeoutError, OSError) as error:
        return map_error(error, doing)
    return [(broker_host, broker_port) for _, broker_host, broker_port, *_ in metadata.brokers]


def _diagnose_token(settings: Settings, doing: str) -> ExternalError:
    """Why a broker refused a token. It does not say, but a token that has expired shows it."""
    file = settings.sasl_oauth_token_file
    source = "CC_SASL_OAUTH_TOKEN_FILE" if file else "CC_SASL_OAUTH_TOKEN_ENDPOINT"
    refusal = f"{doing}: the broker refused the token of {source}"
    expires = _find_expiry(file) if file else None  # one of the endpoint is not used for so long
    if expires is not None and expires <= dt.datetime.now(dt.UTC):
        return Expired(f"{refusal}: it expired at {expires:%Y-%m-%dT%H:%M:%SZ}: find out why nothing renews the file")
    return Renewable(
        f"{refusal}: check its issuer, audience and signing key against the broker's sasl.oauthbearer settings"
    )


def _find_expiry(file: str) -> dt.datetime | None:
    try:
        return oauth.parse_expiry(oauth.read_token(file))
    except oauth.TokenUnusableError:
        return None
