"""Decides which requests to answer: those with the token, or, if no token is set, those to a loopback address.

1. The comparison of tokens takes constant time, so that it does not tell how much of a token is right.
2. A browser that has sent the token gets a session instead. Neither scripts nor other sites can read the cookie, and
   beyond loopback it is sent over HTTPS only.
3. Without a token the host of a request has to be loopback. Else a foreign site, open in a browser on this machine,
   could point a name of its own to loopback and read conversations (DNS rebinding).
4. A form counts only if it is from a page of the same site. Over HTTPS and from loopback browsers say so by
   `Sec-Fetch-Site`; over plain HTTP the `Origin` has to be the host of the request.
5. A request that is signed counts only at the address that this worker advertises.
"""

import hmac
import time
from collections.abc import Callable
from typing import Final, Literal

from aiohttp import web
from msgspec import Struct
from yarl import URL

from consumer.settings import is_loopback
from consumer.web.api import PARTS_PATH
from consumer.web.sessions import Sessions
from consumer.web.worker_signature import WorkerSignature

COOKIE: Final = "cc_session"
BEARER: Final = "token"
"""The session of a request that has the token itself."""
WORKER: Final = "worker"
"""The session of a request that another worker has signed with the token. It is for parts of answers alone."""

_SCHEME: Final = b"Bearer "
_OWN_SITE: Final = frozenset(("same-origin", "none"))
Verdict = Literal["allowed", "unauthorized", "wrong_token", "misdirected"]


class Identity(Struct, frozen=True):
    """Whether a request may be answered, and for whom."""

    verdict: Verdict
    session: str | None = None
    """The label of its session, `token` for the token itself, `worker` for another worker.

    None if no token is set, or if it may not be answered.
    """


class Authenticator:
    """Holds the token, which is empty if none is set, and the sessions."""

    def __init__(self, token: str, signature: WorkerSignature, address: Callable[[], str]) -> None:
        self._token = token.encode()
        self._signature = signature
        self._address = address
        self._sessions = Sessions(time.monotonic)

    @property
    def is_open(self) -> bool:
        """Whether no token is set."""
        return not self._token

    def identify(self, request: web.Request) -> Identity:
        """Whether a request may be answered, and for whom."""
        if self.is_open:
            return Identity("allowed" if names_loopback(request) else "misdirected")
        session = self._sessions.find(request.cookies.get(COOKIE, ""))
        if session is not None:
            return Identity("allowed", session)
        if "Authorization" not in request.headers:
            return Identity("unauthorized")
        if self._has_token(request):
            return Identity("allowed", BEARER)
        return Identity("allowed", WORKER) if self._is_signed(request) else Identity("wrong_token")

    def sign_answer(self, request: web.Request, body: bytes) -> str | None:
        """The signature of the answer to a request that is signed, else None."""
        nonce = self._find_nonce(request)
        return None if nonce is None else self._signature.sign_answer(nonce, body)

    def accepts(self, token: str) -> bool:
        """Whether this is the token."""
        return bool(self._token) and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)

    def begin_session(self) -> str:
        """A new session as the value of its cookie."""
        return self._sessions.begin()

    def end_session(self, request: web.Request) -> None:
        """End the session of a request, if it has one."""
        self._sessions.end(request.cookies.get(COOKIE, ""))

    def _is_signed(self, request: web.Request) -> bool:
        return request.path.startswith(PARTS_PATH) and self._find_nonce(request) is not None

    def _find_nonce(self, request: web.Request) -> str | None:
        (authorization, *others) = request.headers.getall("Authorization", [""])
        return None if others else self._signature.verify(authorization, self._address(), request.raw_path)

    def _has_token(self, request: web.Request) -> bool:
        headers = request.headers.getall("Authorization")
        if len(headers) != 1:
            return False
        header = headers[0].encode("utf-8", "surrogateescape")
        return header[: len(_SCHEME)].lower() == _SCHEME.lower() and hmac.compare_digest(
            header[len(_SCHEME) :].strip(), self._token
        )


def names_loopback(request: web.Request) -> bool:
    """Whether the host of a request is loopback."""
    try:
        return is_loopback(URL(f"http://{request.headers.get('Host', '')}").host or "")
    except ValueError:
        return False


def is_of_own_site(request: web.Request) -> bool:
    """Whether a form is from a page of the same site, or not from a browser."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _OWN_SITE
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()
