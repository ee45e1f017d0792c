"""What a token endpoint answers (RFC 6749, section 5), and what a failure means to an operator.

No error has the token, or anything else of the answer but an error code that the RFC defines.
"""

import datetime as dt
from typing import Final

import msgspec
from aiokafka.errors import KafkaError
from msgspec import Struct

from consumer.kafka import oauth, tls

_OK: Final = 200
_TRANSIENT: Final = (408, 429)
"""Statuses below those of server errors after which the same request may succeed."""
_SERVER_ERROR: Final = 500
_UNAUTHORIZED: Final = (401, 403)
_CLIENT: Final = "check CC_SASL_OAUTH_CLIENT_ID and the secret in CC_SASL_OAUTH_CLIENT_SECRET_FILE"
_GRANT: Final = "let the provider allow this client the grant client_credentials"
_REMEDIES: Final = {
    "invalid_client": _CLIENT,
    "invalid_scope": "check CC_SASL_OAUTH_SCOPE",
    "unauthorized_client": _GRANT,
    "unsupported_grant_type": _GRANT,
}
"""By the error codes of section 5.2 that have a remedy of their own."""
_LIFETIME_S: Final = 300.0
"""Of a token of which nothing says when it expires."""
_LIFETIME_S_MAX: Final = 86_400.0
_ROUNDING_S: Final = 1.0
"""By how much a token may expire earlier than it seems: its times are in whole seconds."""


class TokenNotIssuedError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """There is no token; `args[0]` has the cause and the remedy. It is a KafkaError as `TokenUnusableError` is."""

    def __init__(self, reason: str, *, is_transient: bool) -> None:
        super().__init__(f"CC_SASL_OAUTH_TOKEN_ENDPOINT: {reason}")
        self.is_transient = is_transient
        """Whether it heals without a change of settings, files or what the provider knows of the client."""


class IssuedToken(Struct, frozen=True):
    """A token, and for how many seconds it is valid."""

    text: str
    lifetime_s: float

    def __repr__(self) -> str:
        return f"IssuedToken(text=..., lifetime_s={self.lifetime_s})"


class _Answer(Struct):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - no secret
    expires_in: float | None = None


class _Refusal(Struct):
    error: str = ""


def parse_answer(status: int, body: bytes) -> IssuedToken:
    """The token of an answer. Raises TokenNotIssuedError."""
    if status != _OK:
        raise _explain_refusal(status, body)
    try:
        answer = msgspec.json.decode(body, type=_Answer, strict=False)  # some providers send the seconds as a string
        text = oauth.check_token(answer.access_token)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, oauth.TokenUnusableError):
        raise wrong_endpoint("the answer holds no token") from None
    if answer.token_type.lower() != "bearer":
        raise wrong_endpoint("the answer holds no bearer token")
    lifetime_s = answer.expires_in
    if lifetime_s is None and (expires := oauth.parse_expiry(text)) is not None:
        lifetime_s = (expires - dt.datetime.now(dt.UTC)).total_seconds()
    lifetime_s = (_LIFETIME_S if lifetime_s is None else min(lifetime_s, _LIFETIME_S_MAX)) - _ROUNDING_S
    if not lifetime_s > 0:  # also NaN, which a string may hold
        raise TokenNotIssuedError("the token of the answer expires at once: check the clocks", is_transient=True)
    return IssuedToken(text, lifetime_s)


def _explain_refusal(status: int, body: bytes) -> TokenNotIssuedError:
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        return TokenNotIssuedError(f"the provider has no answer at the moment ({status})", is_transient=True)
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        code = ""
    if remedy := _REMEDIES.get(code):
        return TokenNotIssuedError(f"the provider refused the client ({status}, {code}): {remedy}", is_transient=False)
    if status in _UNAUTHORIZED:
        return TokenNotIssuedError(f"the provider refused the client ({status}): {_CLIENT}", is_transient=False)
    return wrong_endpoint(f"the provider refused the request ({status})")


def wrong_endpoint(reason: str) -> TokenNotIssuedError:
    """What answers seems to be no token endpoint."""
    return TokenNotIssuedError(f"{reason}: name the URL of the provider's token endpoint", is_transient=False)


def explain_silence(error: Exception) -> TokenNotIssuedError:
    """Why there was no answer, by the error of the request."""
    certificate_error = getattr(error, "certificate_error", None)  # of aiohttp's ClientConnectorCertificateError
    if certificate_error is None:
        cause = getattr(error, "os_error", error)  # of aiohttp's ClientConnectorError
        return TokenNotIssuedError(f"the provider cannot be reached: {type(cause).__name__}", is_transient=True)
    if tls.is_outdated(certificate_error):
        return TokenNotIssuedError(
            "the provider's certificate has expired or is not valid yet: have it renewed, and check this machine's "
            "clock",
            is_transient=True,
        )
    return TokenNotIssuedError(
        "no trusted authority has issued the provider's certificate for this host: put its authority into "
        "CC_SASL_OAUTH_CA_FILE, or name a host that the certificate has",
        is_transient=False,
    )
