"""What every connection to Kafka has in common: arguments from the settings, and errors in the runtime's words."""

import ssl
from typing import Any

from aiokafka import errors

from consumer.runtime.ports import Fenced, Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings

_FENCED = (errors.ProducerFenced, errors.InvalidProducerEpoch)
_AUTHENTICATION = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_AUTHORIZATION = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client. Raises Misfit if a certificate cannot be read."""
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


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(f"CC_SSL_CA_FILE: cannot use {settings.ssl_ca_file!r}: {type(error).__name__}") from error
    if settings.ssl_cert_file:
        try:
            context.load_cert_chain(
                settings.ssl_cert_file, settings.ssl_key_file, lambda: settings.ssl_key_password or ""
            )
        except (OSError, ssl.SSLError) as error:
            raise Misfit(
                f"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use {settings.ssl_cert_file!r} with "
                f"{settings.ssl_key_file!r} (and CC_SSL_KEY_PASSWORD): {type(error).__name__}"
            ) from error
    return context


def world_error(error: BaseException, doing: str) -> WorldError:
    """An error of aiokafka in the runtime's words; `doing` says what was tried. Never the error's own text."""
    kind = type(error).__name__
    if isinstance(error, _FENCED):
        return Fenced(f"{doing}: another worker took the partition over ({kind})")
    if isinstance(error, _AUTHENTICATION):
        return Misfit(
            f"{doing}: the broker refused the credentials ({kind}): check CC_SECURITY_PROTOCOL, CC_SASL_MECHANISM, "
            f"CC_SASL_USERNAME and CC_SASL_PASSWORD"
        )
    if isinstance(error, _AUTHORIZATION):
        return Misfit(f"{doing}: a permission is missing ({kind}): grant the user of CC_SASL_USERNAME what README lists")
    if isinstance(error, errors.UnsupportedVersionError):
        return Misfit(f"{doing}: the broker is too old ({kind})")
    if isinstance(error, errors.RecordTooLargeError | errors.MessageSizeTooLargeError):
        return Misfit(f"{doing}: a batch is too large for its topic ({kind}): lower CC_BATCH_BYTES_MAX")
    return Unreachable(f"{doing}: {kind}")
