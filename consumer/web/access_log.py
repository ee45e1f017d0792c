"""What the query port logs of those who use it.

1. Failed attempts to sign in: a line for a peer and minute, and `LINES_MAX` lines a minute for all peers together.
   `repeated` and `others` count what was left out.
2. Who looks at which conversation, if that is switched on: a line per request. The conversation is a digest, under the
   digest key if there is one, so that the log holds no id and the lines of one conversation can still be found.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import web

from consumer.telemetry.logs import logger
from consumer.web.attempts import PEERS_MAX, Way

WINDOW_S: Final = 60.0
LINES_MAX: Final = 10
_DIGEST_BYTES: Final = 16


class FailureLog:
    """Logs failed attempts to sign in, at a bounded rate."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._logged_s: deque[float] = deque(maxlen=LINES_MAX)
        """When the last lines were logged."""
        self._repeated: dict[str, tuple[float, int]] = {}
        """By peer: when its last line was logged, and how many of its failures were not logged since."""
        self._others = 0

    def note(self, peer: str, way: Way) -> None:
        """Log a failed attempt, or count it as left out."""
        now_s = self._monotonic_s()
        logged_s, repeated = self._repeated.pop(peer, (float("-inf"), 0))
        if now_s - logged_s < WINDOW_S:
            self._repeated[peer] = logged_s, repeated + 1
            return
        if len(self._logged_s) == LINES_MAX and now_s - self._logged_s[0] < WINDOW_S:
            self._others += 1
            return
        self._logged_s.append(now_s)
        if len(self._repeated) >= PEERS_MAX:
            del self._repeated[next(iter(self._repeated))]
        self._repeated[peer] = now_s, 0
        others, self._others = self._others, 0
        logger().warning("query.sign_in_failed", peer=peer, way=way, repeated=repeated, others=others)


class AuditLog:
    """Logs who looks at what. `digest_key` is that of the digests of session and room ids, or empty."""

    def __init__(self, digest_key: bytes) -> None:
        self._digest_key = digest_key

    def note(self, request: web.Request, peer: str, session: str | None) -> None:
        """Log a request that is allowed; before the answer, since a stream has no end."""
        conversation_id = request.match_info.get("conversationId")
        resource = request.match_info.route.resource
        logger().info(
            "query.asked",
            peer=peer,
            session=session,
            path=None if resource is None else resource.canonical,
            conversation=None if conversation_id is None else self.digest(conversation_id),
        )

    def digest(self, conversation_id: str) -> str:
        """What stands for a conversation in the log."""
        text = conversation_id.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=self._digest_key).hexdigest()
