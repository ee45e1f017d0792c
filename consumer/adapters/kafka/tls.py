"""TLS towards the brokers: certificates from files that may be renewed at any time, and what a failure means.

aiokafka keeps one context for as long as a client lives, which for the group member is as long as the process. So the
context looks at its files whenever a connection begins; connections that stand are left alone.
"""

import functools
import os
import ssl
from collections.abc import Callable
from typing import Any, Self

from consumer.adapters import logs
from consumer.runtime.ports import Misfit
from consumer.runtime.settings import Settings

_TIMES = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, as in OpenSSL's x509_vfy.h."""
_NAMES = (62, 63, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH, and the same for an e-mail and an IP address."""
_REFUSALS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""What the alerts of a broker that does not like the client's certificate have in their names, of which there are
several for the same cause."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class FileContext(ssl.SSLContext):
    """A context for clients that begins each connection with the files' content of that moment.

    Files that cannot be used, such as a certificate that is there before its key, change nothing: what was read last
    stays in use, and a log line says so.
    """

    def __new__(cls, *_: object) -> Self:  # noqa: D102 - a magic method
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: tuple[str, ...], load: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._load = load
        self._stamp = _stamp(files)
        self._current = load()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection."""
        stamp = _stamp(self._files)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._current = self._load()
            except Misfit as error:
                logs.logger().warning("tls.files_unusable", error=str(error), remedy="the last ones stay in use")
            else:
                logs.logger().info("tls.files_renewed")
        return self._current.wrap_bio(*args, **kwargs)


def context(settings: Settings) -> ssl.SSLContext:
    """The context of all clients with these files. Raises Misfit if one of them cannot be used."""
    return _context(settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file, settings.ssl_key_password)


@functools.lru_cache(maxsize=4)  # one per process, but for tests: a context holds a few hundred KiB of authorities
def _context(ca_file: str, cert_file: str, key_file: str, key_password: str) -> ssl.SSLContext:
    files = tuple(file for file in (ca_file, cert_file, key_file) if file)
    return FileContext(files, lambda: _load(ca_file, cert_file, key_file, key_password))


def _load(ca_file: str, cert_file: str, key_file: str, key_password: str) -> ssl.SSLContext:
    try:
        loaded = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Misfit(
            f"CC_SSL_CA_FILE: cannot use {ca_file!r}: {type(error).__name__}: name a readable PEM file of "
            f"authorities, or leave it empty for the system's"
        ) from error
    if cert_file:
        try:
            loaded.load_cert_chain(cert_file, key_file, lambda: key_password)
        except (OSError, ssl.SSLError) as error:
            raise Misfit(
                f"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use {cert_file!r} with {key_file!r} (and "
                f"CC_SSL_KEY_PASSWORD): {type(error).__name__}: name readable PEM files that belong together, and the "
                f"key's password"
            ) from error
    return loaded


def _stamp(files: tuple[str, ...]) -> Stamp:
    """What changes when one of the files does, also where it is a link that is turned to another."""
    return tuple(_file_stamp(file) for file in files)


def _file_stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - the name is all there is of the file
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def is_time_fault(error: ssl.SSLError) -> bool:
    """Whether the broker's certificate or its authority is out of date, which is mended without a change here."""
    return isinstance(error, ssl.SSLCertVerificationError) and getattr(error, "verify_code", 0) in _TIMES


def remedy(error: ssl.SSLError) -> str | None:
    """What is wrong with the certificate of either side, and what to do. None if no certificate is to blame."""
    if is_time_fault(error):
        return (
            "the broker's certificate, or its authority in CC_SSL_CA_FILE, has expired or is not valid yet: have it "
            "renewed, and check this machine's clock"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        if getattr(error, "verify_code", 0) in _NAMES:
            return (
                "the broker's certificate is for another host: give CC_BOOTSTRAP_SERVERS, and the broker's "
                "advertised.listeners, a name that the certificate has, or have it issued for this one"
            )
        return "the broker's certificate is of no authority that is trusted: put the authority into CC_SSL_CA_FILE"
    reason = getattr(error, "reason", None) or ""
    if "ALERT" in reason and any(word in reason for word in _REFUSALS):
        return (
            "the broker refused the client certificate, or the lack of one: check that CC_SSL_CERT_FILE and "
            "CC_SSL_KEY_FILE are set, that the certificate has not expired (`openssl x509 -noout -enddate -in FILE`), "
            "and that the broker trusts its authority"
        )
    return None
