"""The sessions of people who have signed in, by random ids that browsers keep as a cookie.

1. An id reveals no token. The server keeps only the digest of an id, so that what it holds opens no session.
2. A session ends with its time, when its person signs out, when `SESSIONS_MAX` newer ones have begun, and with the
   process.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from msgspec import Struct

SESSION_S: Final = 43_200
"""Twelve hours: a shift."""
SESSIONS_MAX: Final = 256

_ID_BYTES: Final = 32
_LABEL_LENGTH: Final = 12


class _Session(Struct, frozen=True):
    label: str
    ends_s: float


class Sessions:
    """Begins, finds and ends sessions, by a monotonic clock."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._sessions: dict[bytes, _Session] = {}
        """By the digest of the id, the oldest at the front."""

    def begin(self) -> str:
        """The id of a new session."""
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        session_id = secrets.token_urlsafe(_ID_BYTES)
        digest = _digest(session_id)
        self._sessions[digest] = _Session(digest.hex()[:_LABEL_LENGTH], self._monotonic_s() + SESSION_S)
        return session_id

    def find(self, session_id: str) -> str | None:
        """The label of a session, which opens nothing and may be logged; None if there is none (any more)."""
        session = self._sessions.get(_digest(session_id))
        return None if session is None or session.ends_s <= self._monotonic_s() else session.label

    def end(self, session_id: str) -> None:
        """End a session, if there is one."""
        self._sessions.pop(_digest(session_id), None)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).digest()
