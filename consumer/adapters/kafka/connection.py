"""What every connection to Kafka has in common: its arguments from the settings, its start, and why there is none."""

import asyncio
import datetime as dt
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import errors
from aiokafka.codec import has_snappy, has_zstd
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from consumer.adapters.kafka import header_names, nodes, tls, tokens
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.faults import AUTHENTICATION, Expired, Renewable, world_error
from consumer.runtime.ports import Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings

_PROBE_S = 5.0
_ADDRESS = re.compile(r"(?:[\w.-]+|\[(?P<ipv6>[^\[\]]+)\])(?::(?P<port>[0-9]{1,5}))?")
_USER_INFO = re.compile(r"[^,/@]*@")
_PORT_MAX = 65_535
_CODECS = {"snappy": has_snappy, "zstd": has_zstd}


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client. Raises Misfit if an address, codec or certificate cannot be used."""
    _check_addresses(settings.bootstrap_servers)
    _check_codec(settings.compression)
    header_names.blur_unreadable()
    nodes.spare_unreachable()
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = tls.context(settings)
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            tokens.heed_refusals()
            arguments["sasl_oauth_token_provider"] = tokens.TokenFile(settings.sasl_oauth_token_file)
        else:
            arguments["sasl_plain_username"] = settings.sasl_username
            arguments["sasl_plain_password"] = settings.sasl_password
    return arguments


def _check_addresses(bootstrap_servers: str) -> None:
    """Refuse what aiokafka would answer with an error of another kind, or would look for as a host of that name."""
    if all(_is_address(each.strip()) for each in bootstrap_servers.split(",")):
        return
    shown = _USER_INFO.sub("...@", bootstrap_servers)
    remedy = ": leave out the protocol, CC_SECURITY_PROTOCOL says it" if "://" in bootstrap_servers else ""
    raise Misfit(f"CC_BOOTSTRAP_SERVERS: {shown!r} is no list of `host:port` separated by commas{remedy}")


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
    """Refuse what aiokafka's producer would answer with a RuntimeError."""
    if compression != "none" and not _CODECS[compression]():
        raise Misfit(
            f"CC_COMPRESSION={compression}: the codec is not installed: install the locked requirements (cramjam), or "
            f"set it to none"
        )


async def unconnected(settings: Settings, error: WorldError) -> WorldError:
    """Why a client could not connect, better told than in its own `error`: wrong credentials are a Misfit."""
    fault = await connection_fault(settings)
    if isinstance(fault, Misfit | Expired):
        return fault
    return Unreachable(
        f"{fault or error}: are CC_BOOTSTRAP_SERVERS and CC_SECURITY_PROTOCOL right, and does the broker run?"
    )


async def start(
    starting: Awaitable[None], settings: Settings, seconds: float, stop: Callable[[], Awaitable[None]], doing: str = ""
) -> None:
    """Wait for a client's first connection; where there is none, or nobody waits for it, the client is stopped.

    `doing` says what was tried if it is more than to connect. Raises WorldError.
    """
    try:
        await within(seconds, starting)
    except (errors.KafkaError, errors.IllegalOperation, TimeoutError, OSError) as error:
        await stop()
        told = world_error(error, doing or f"connecting to {settings.bootstrap_servers}")
        raise (await unconnected(settings, told) if isinstance(told, Unreachable) else told) from error
    except BaseException:
        await stop()
        raise


async def connection_fault(settings: Settings) -> WorldError | None:
    """Why the cluster of CC_BOOTSTRAP_SERVERS cannot be used, None if it can. A Misfit is told before others.

    aiokafka's clients only log this and say that they could not bootstrap, also when the password is wrong. One
    address that lets the client in is enough, if all brokers that it names do as well.
    """
    hosts = [(host, port) for host, port, _ in collect_hosts(settings.bootstrap_servers)]
    found = await asyncio.gather(*(_probe(settings, *each) for each in hosts))
    for brokers in found:
        if not isinstance(brokers, WorldError):
            others = [each for each in brokers if each not in hosts]
            found = await asyncio.gather(*(_probe(settings, *each) for each in others))
            break
    faults = [each for each in found if isinstance(each, WorldError)]
    return next((each for each in faults if isinstance(each, Misfit)), next(iter(faults), None))


async def _probe(settings: Settings, host: str, port: int) -> list[tuple[str, int]] | WorldError:
    """The addresses that a broker names, its own among them, or why it does not."""
    arguments = connection_arguments(settings)
    del arguments["bootstrap_servers"]
    doing = f"connecting to {host}:{port}"
    try:
        async with asyncio.timeout(_PROBE_S):
            connection = await create_conn(host, port, **arguments)
            try:
                answer = await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except tokens.TokenUnusableError as error:
        return Renewable(
            f"{doing}: CC_SASL_OAUTH_TOKEN_FILE: cannot use {settings.sasl_oauth_token_file!r}: {error.args[0]}: name "
            f"a readable file that holds one token"
        )
    except AUTHENTICATION as error:
        if settings.sasl_mechanism == "OAUTHBEARER" and isinstance(error, errors.SaslAuthenticationFailed):
            return _refused_token(settings, doing)
        return world_error(error, doing)
    except (errors.KafkaError, TimeoutError, OSError) as error:
        return world_error(error, doing)
    return [(address, number) for _, address, number, *_ in answer.brokers]


def _refused_token(settings: Settings, doing: str) -> WorldError:
    """A token that has expired is renewed by whoever keeps the file; why any other is refused, no broker says."""
    told = f"{doing}: the broker refused the token of CC_SASL_OAUTH_TOKEN_FILE"
    try:
        expires = tokens.expiry(tokens.read_token(settings.sasl_oauth_token_file))
    except tokens.TokenUnusableError:
        expires = None
    if expires is not None and expires <= dt.datetime.now(dt.UTC):
        return Expired(f"{told}: it expired at {expires:%Y-%m-%dT%H:%M:%SZ}: see why nobody renews the file")
    return Renewable(
        f"{told}: check its issuer, audience and signing key against the broker's sasl.oauthbearer settings"
    )
