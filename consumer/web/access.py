"""Who may use the query port: admits requests, signs people in and out, and counts and logs whom it turns away."""

import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from consumer.telemetry.labels import Refusal
from consumer.web.access_log import FailureLog
from consumer.web.answers import Refused
from consumer.web.attempts import REGAIN_S, Attempts, Way
from consumer.web.authenticator import (
    BEARER,
    COOKIE,
    WORKER,
    Authenticator,
    Identity,
    is_of_own_site,
    names_loopback,
)
from consumer.web.peers import peer_of
from consumer.web.sessions import SESSION_S
from consumer.web.worker_signature import SCHEME, WorkerSignature
from schemas.query import Problem

OPEN_PATHS: Final = frozenset(("/login", "/assets/page.css", "/assets/page.js", "/assets/icon.svg"))
"""Served without the token, since they are needed to send it."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="conversation-consumer"'}


class Access:
    """The access to one query port. `on_refused` is called for every request that is turned away."""

    def __init__(
        self,
        token: str,
        signature: WorkerSignature,
        address: Callable[[], str],
        on_refused: Callable[[Refusal], None],
    ) -> None:
        self._authenticator = Authenticator(token, signature, address)
        self._attempts = Attempts(time.monotonic)
        self._failures = FailureLog()
        self._on_refused = on_refused

    @property
    def is_open(self) -> bool:
        """Whether no token is set, so that there is nothing to sign in with."""
        return self._authenticator.is_open

    def identify(self, request: web.Request) -> Identity:
        """For whom a request is, without any consequence."""
        return self._authenticator.identify(request)

    def admit(self, request: web.Request) -> Identity:
        """For whom a request is. Raises Refused if it may not be answered."""
        identity = self._authenticator.identify(request)
        if identity.verdict == "misdirected":
            self._on_refused("misdirected")
            raise Refused(Problem("without CC_QUERY_TOKEN only requests to a loopback address are answered", 421))
        if identity.verdict == "wrong_token" or identity.session in {BEARER, WORKER}:
            is_signature = request.headers["Authorization"].startswith(SCHEME)
            way: Way = "signature" if is_signature else "header"
            self._judge(request, way, is_right=identity.verdict == "allowed")
        elif identity.verdict == "unauthorized" and request.path not in OPEN_PATHS:
            self._on_refused("unauthorized")
        if identity.verdict != "allowed" and request.path not in OPEN_PATHS:
            raise Refused(Problem("a bearer token is needed: CC_QUERY_TOKEN", 401), _CHALLENGE)
        if request.method == "POST" and not is_of_own_site(request):
            self._on_refused("cross_site")
            raise Refused(Problem("a form of another site", 403))
        return identity

    def sign_answer(self, request: web.Request, body: bytes) -> str | None:
        """See `Authenticator.sign_answer`."""
        return self._authenticator.sign_answer(request, body)

    def sign_in(self, request: web.Request, token: str) -> web.Response | None:
        """The answer that begins a session, None if this is not the token. Raises Refused for a peer that guesses."""
        if not self._judge(request, "form", is_right=self._authenticator.accepts(token)):
            return None
        answer = web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": "/"})
        answer.set_cookie(
            COOKIE,
            self._authenticator.begin_session(),
            max_age=SESSION_S,
            httponly=True,
            secure=not names_loopback(request),
            samesite="Strict",
            path="/",
        )
        return answer

    def sign_out(self, request: web.Request) -> web.Response:
        """The answer that ends the session of a request."""
        self._authenticator.end_session(request)
        answer = web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": "/"})
        answer.del_cookie(COOKIE, httponly=True, samesite="Strict", path="/")
        return answer

    def _judge(self, request: web.Request, way: Way, *, is_right: bool) -> bool:
        """Whether an attempt is right. Raises Refused if its peer has failed too often."""
        peer = requesting_peer(request)
        judgement = self._attempts.judge(peer, way, is_right=is_right)
        if judgement == "right":
            return True
        self._failures.note(peer, way)
        if judgement == "wrong":
            self._on_refused("wrong_token")
            return False
        self._on_refused("throttled")
        raise Refused(Problem("too many wrong tokens from this address", 429), {"Retry-After": f"{REGAIN_S:.0f}"})


def requesting_peer(request: web.Request) -> str:
    """The peer of a request."""
    return "unknown" if request.remote is None else peer_of(request.remote)
