"""What every connection to Kafka has in common: arguments from the settings, and errors in the runtime's words."""

import asyncio
import ssl
from typing import Any

from aiokafka import errors
from aiokafka.codec import has_snappy, has_zstd
from aiokafka.conn import collect_hosts, create_conn

from consumer.runtime.ports import Fenced, Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings

_PROBE_S = 5.0
_PORT_MAX = 65_535
_CODECS = {"snappy": has_snappy, "zstd": has_zstd}
_FENCED = (errors.ProducerFenced, errors.InvalidProducerEpoch)
_AUTHENTICATION = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_TOO_OLD = (errors.UnsupportedVersionError, errors.IncompatibleBrokerVersion, errors.UnrecognizedBrokerVersion)
_TOO_LARGE = (errors.RecordTooLargeError, errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_GRANT = "a permission is missing: grant the user of CC_SASL_USERNAME"
_TOPICS_GRANT = (
    f"{_GRANT} Describe, DescribeConfigs and Read on the input and state topics, Describe, DescribeConfigs and Write "
    f"on the state, transitions and dead letters topics"
)
_CREDENTIALS = (
    "the broker refused the credentials: check CC_SECURITY_PROTOCOL, CC_SASL_MECHANISM, CC_SASL_USERNAME and "
    "CC_SASL_PASSWORD"
)
_SESSION = "CC_SESSION_TIMEOUT_MS is outside the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
_TRANSACTION = (
    "CC_TRANSACTION_TIMEOUT_MS is above the broker's transaction.max.timeout.ms: lower the one or raise the other"
)
_UNTRUSTED = (
    "the broker's certificate is not trusted: check CC_SSL_CA_FILE, and that the certificate has the names that "
    "CC_BOOTSTRAP_SERVERS uses"
)
_REMEDIES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (_AUTHENTICATION, _CREDENTIALS),
    ((errors.TopicAuthorizationFailedError,), _TOPICS_GRANT),
    ((errors.GroupAuthorizationFailedError,), f"{_GRANT} Read on the group of CC_GROUP_ID"),
    (
        (errors.TransactionalIdAuthorizationFailed,),
        f"{_GRANT} Write and Describe on transactional ids that start with CC_GROUP_ID",
    ),
    ((errors.ClusterAuthorizationFailedError,), f"{_GRANT} IdempotentWrite on the cluster"),
    (_TOO_OLD, "the broker is too old for this version: upgrade it"),
    (_TOO_LARGE, "a batch is too large for its topic: lower CC_BATCH_BYTES_MAX, or raise its max.message.bytes"),
    ((errors.InvalidTopicError,), "a topic's name is not valid: check CC_INPUT_TOPIC and the settings of the outputs"),
    ((errors.InvalidTransactionTimeout,), _TRANSACTION),
    ((errors.InvalidSessionTimeoutError,), _SESSION),
    (
        (errors.InconsistentGroupProtocolError,),
        "the group of CC_GROUP_ID is used by another kind of consumer: choose another id",
    ),
    ((errors.UnsupportedCodecError,), "a codec is not installed: install the locked requirements (cramjam)"),
    ((ssl.SSLCertVerificationError,), _UNTRUSTED),
)
"""What only an operator can mend, with what to do."""


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client. Raises Misfit if an address, codec or certificate cannot be used."""
    _check_addresses(settings.bootstrap_servers)
    _check_codec(settings.compression)
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        arguments["sasl_plain_username"] = settings.sasl_username
        arguments["sasl_plain_password"] = settings.sasl_password
    return arguments


def _check_addresses(bootstrap_servers: str) -> None:
    """Refuse what aiokafka would answer with a ValueError or an OverflowError, and only when it connects."""
    try:
        usable = all(host and 0 < port <= _PORT_MAX for host, port, _ in collect_hosts(bootstrap_servers))
    except ValueError:
        usable = False
    if not usable:
        raise Misfit(f"CC_BOOTSTRAP_SERVERS: {bootstrap_servers!r} is no list of `host:port` separated by commas")


def _check_codec(compression: str) -> None:
    """Refuse what aiokafka's producer would answer with a RuntimeError."""
    if compression != "none" and not _CODECS[compression]():
        raise Misfit(
            f"CC_COMPRESSION={compression}: the codec is not installed: install the locked requirements (cramjam), or "
            f"set it to none"
        )


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(
            f"CC_SSL_CA_FILE: cannot use {settings.ssl_ca_file!r}: {type(error).__name__}: name a readable PEM file of "
            f"authorities, or leave it empty for the system's"
        ) from error
    if settings.ssl_cert_file:
        try:
            context.load_cert_chain(
                settings.ssl_cert_file, settings.ssl_key_file, lambda: settings.ssl_key_password or ""
            )
        except (OSError, ssl.SSLError) as error:
            raise Misfit(
                f"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use {settings.ssl_cert_file!r} with "
                f"{settings.ssl_key_file!r} (and CC_SSL_KEY_PASSWORD): {type(error).__name__}: name "
                f"readable PEM files that belong together, and the key's password"
            ) from error
    return context


def world_error(error: BaseException, doing: str) -> WorldError:
    """An error of aiokafka in the runtime's words; `doing` says what was tried. Never the error's own text.

    A topic that the broker does not know is Unreachable: aiokafka says the same when the broker is only away.
    """
    kind = type(error).__name__
    if isinstance(error, _FENCED):
        return Fenced(f"{doing}: another worker took the partition over ({kind})")
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return Misfit(f"{doing}: {remedy} ({kind})")
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return Unreachable(f"{doing}: the broker does not know the topic just now: see `conversation-consumer topics`")
    return Unreachable(f"{doing}: {kind}")


async def unconnected(settings: Settings, error: WorldError) -> WorldError:
    """Why a client could not connect, better told than in its own `error`: credentials are a Misfit."""
    fault = await connection_fault(settings)
    if isinstance(fault, Misfit):
        return fault
    return Unreachable(
        f"{fault or error}: are CC_BOOTSTRAP_SERVERS and CC_SECURITY_PROTOCOL right, and does the broker run?"
    )


async def connection_fault(settings: Settings) -> WorldError | None:
    """Why no broker of CC_BOOTSTRAP_SERVERS can be connected to, None if one can. A Misfit is told before others.

    aiokafka's clients only log this and say that they could not bootstrap, also when the password is wrong.
    """
    arguments = connection_arguments(settings)
    faults: list[WorldError] = []
    for host, port, _ in collect_hosts(arguments.pop("bootstrap_servers")):
        doing = f"connecting to {host}:{port}"
        try:
            connection = await asyncio.wait_for(create_conn(host, port, **arguments), _PROBE_S)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            faults.append(world_error(error, doing))
        else:
            connection.close()
            return None
    return next((each for each in faults if isinstance(each, Misfit)), faults[0])
