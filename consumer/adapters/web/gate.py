"""Who may ask: whoever has the token, or, where none is set, whoever asks on this machine under its own name.

1. Tokens are compared in a time that does not tell how much of one is right.
2. A browser that has shown the token gets a session instead: an expiry and its digest under the token. The cookie is
   out of reach of scripts and of other sites, and no token is in it; a new token ends all sessions.
3. Without a token set, only requests that name loopback as their host are answered: a page of a foreign site that a
   browser here has open must not read conversations by a name that it points to loopback.
"""

import hashlib
import hmac
import time
from typing import Final, Literal

from aiohttp import web
from yarl import URL

from consumer.runtime.settings import is_loopback

SESSION_S: Final = 43_200
"""Twelve hours: a shift."""
COOKIE: Final = "cc_session"

_SCHEME: Final = b"Bearer "
Verdict = Literal["welcome", "unauthorized", "misdirected"]


class Gate:
    """Knows the token, which is empty where none is set."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    @property
    def is_open(self) -> bool:
        """Whether there is no token to show."""
        return not self._token

    def judge(self, request: web.Request) -> Verdict:
        """Whether a request may be answered."""
        if self.is_open:
            return "welcome" if _names_loopback(request.headers.get("Host", "")) else "misdirected"
        return "welcome" if self._has_token(request) or self._has_session(request) else "unauthorized"

    def takes(self, token: str) -> bool:
        """Whether this is the token."""
        return bool(self._token) and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)

    def session(self) -> str:
        """A new session."""
        expiry = str(int(time.time()) + SESSION_S)
        return f"{expiry}.{self._digest(expiry)}"

    def _has_token(self, request: web.Request) -> bool:
        shown = request.headers.getall("Authorization", [])
        if len(shown) != 1:
            return False
        given = shown[0].encode("utf-8", "surrogateescape")
        return given[: len(_SCHEME)].lower() == _SCHEME.lower() and hmac.compare_digest(
            given[len(_SCHEME) :].strip(), self._token
        )

    def _has_session(self, request: web.Request) -> bool:
        expiry, _, digest = request.cookies.get(COOKIE, "").partition(".")
        shown = digest.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(shown, self._digest(expiry).encode()):
            return False
        return int(expiry) > time.time()

    def _digest(self, expiry: str) -> str:
        return hmac.new(self._token, expiry.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(URL(f"http://{host}").host or "")
    except ValueError:
        return False
