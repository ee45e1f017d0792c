"""TLS towards the brokers: certificate files that may be renewed at any time, and what a failure means.

aiokafka keeps one context for as long as a client lives, and the group member lives as long as the process. So the
context checks its files whenever a connection begins. Connections that are open stay as they are.
"""

import functools
import os
import ssl
from collections.abc import Callable
from typing import Any, Self

from consumer import secret_files
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.worker.ports import ConfigurationError

_OUTDATED = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, as in OpenSSL's x509_vfy.h."""
_WRONG_NAMES = (62, 63, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH, and the same for an e-mail and an IP address."""
_REFUSALS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Parts of the names of the TLS alerts by which a broker refuses a client certificate; one cause has several alerts."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class FileContext(ssl.SSLContext):
    """A client context that reads its files again when they have changed, at the beginning of each connection.

    If they cannot be used, for example because a certificate was replaced before its key, the content that was read
    last stays in use, and a log line reports it.
    """

    def __new__(cls, *_: object) -> Self:  # noqa: D102 - a magic method
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: tuple[str, ...], load: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._load = load
        self._stamp = _stat_files(files)
        self._current = load()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio calls it."""
        stamp = _stat_files(self._files)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._current = self._load()
            except ConfigurationError as error:
                logs.logger().warning("tls.files_unusable", error=str(error), remedy="the last ones stay in use")
            else:
                logs.logger().info("tls.files_renewed")
        return self._current.wrap_bio(*args, **kwargs)


def load_context(settings: Settings) -> ssl.SSLContext:
    """The context that all clients with these files share. Raises ConfigurationError if a file cannot be used."""
    return _load_shared(settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file, settings.ssl_key_password)


@functools.lru_cache(maxsize=4)  # the service needs one, tests more: a context holds a few hundred KiB of authorities
def _load_shared(ca_file: str, cert_file: str, key_file: str, key_password: str) -> ssl.SSLContext:
    files = tuple(file for file in (ca_file, cert_file, key_file) if file)
    return FileContext(files, lambda: _load(ca_file, cert_file, key_file, key_password))


def _load(ca_file: str, cert_file: str, key_file: str, key_password: str) -> ssl.SSLContext:
    try:
        if ca_file:
            secret_files.check(ca_file)
        loaded = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        named, reason = secret_files.name_file(ca_file), secret_files.describe_error(error)
        raise ConfigurationError(
            f"CC_SSL_CA_FILE: cannot use {named}: {reason}: name a readable PEM file of authorities, or leave it empty "
            f"for the system's"
        ) from error
    if cert_file:
        try:
            secret_files.check(cert_file)
            secret_files.check(key_file)
            loaded.load_cert_chain(cert_file, key_file, lambda: key_password)
        except (OSError, ssl.SSLError) as error:
            cert, key = secret_files.name_file(cert_file), secret_files.name_file(key_file)
            raise ConfigurationError(
                f"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use {cert} with {key} (and CC_SSL_KEY_PASSWORD): "
                f"{secret_files.describe_error(error)}: name readable PEM files that belong together, and the key's "
                f"password"
            ) from error
    return loaded


def _stat_files(files: tuple[str, ...]) -> Stamp:
    """A value that changes with any of the files, also when a link is pointed to another file, as Kubernetes does."""
    return tuple(_stat_file(file) for file in files)


def _stat_file(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - a Path would add nothing
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def is_outdated(error: ssl.SSLError) -> bool:
    """Whether the broker's certificate or its authority has expired or is not valid yet; no setting changes that."""
    return isinstance(error, ssl.SSLCertVerificationError) and getattr(error, "verify_code", 0) in _OUTDATED


def find_remedy(error: ssl.SSLError) -> str | None:
    """What is wrong with the certificate of either side, and what to do; None if the error is not about one."""
    if is_outdated(error):
        return (
            "the broker's certificate, or its authority in CC_SSL_CA_FILE, has expired or is not valid yet: have it "
            "renewed, and check this machine's clock"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        if getattr(error, "verify_code", 0) in _WRONG_NAMES:
            return (
                "the broker's certificate is for another host: give CC_BOOTSTRAP_SERVERS, and the broker's "
                "advertised.listeners, a name that the certificate has, or have it issued for this one"
            )
        return "no trusted authority has issued the broker's certificate: put its authority into CC_SSL_CA_FILE"
    reason = getattr(error, "reason", None) or ""
    if "ALERT" in reason and any(word in reason for word in _REFUSALS):
        return (
            "the broker refused the client certificate, or the lack of one: check that CC_SSL_CERT_FILE and "
            "CC_SSL_KEY_FILE are set, that the certificate has not expired (`openssl x509 -noout -enddate -in FILE`), "
            "and that the broker trusts its authority"
        )
    return None
