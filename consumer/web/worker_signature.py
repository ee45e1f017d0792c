"""How workers prove to each other that they hold the token, without sending it.

1. A request is signed with a key that is derived from the token, for one address and for `WINDOW_S`: who receives it,
   or listens, can repeat it to that address for so long, and learns nothing that opens anything else.
2. An answer is signed for the nonce of its request, so that only a worker with the token can give one.
3. Without a token, which only a port on loopback may be, nothing is signed.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final

SCHEME: Final = "CC-Worker"
ANSWER_HEADER: Final = "CC-Worker-Signature"
WINDOW_S: Final = 60
"""How far the clocks of two workers may be apart."""

_PURPOSE: Final = b"conversation-consumer: requests between workers, version 1"
_NONCE_BYTES: Final = 16
_CREDENTIALS: Final = re.compile(rf"{SCHEME} time=([0-9]{{1,16}}),nonce=([0-9a-f]{{32}}),mac=([0-9a-f]{{64}})")


class WorkerSignature:
    """Signs and verifies with one token, which is empty if none is set. `wall_ms` gives epoch milliseconds."""

    def __init__(self, token: str, wall_ms: Callable[[], int]) -> None:
        self._key = hmac.digest(token.encode(), _PURPOSE, "sha256") if token else b""
        self._wall_ms = wall_ms

    def sign(self, address: str, target: str) -> tuple[str, str] | None:
        """The `Authorization` of a request to an address, and its nonce; None without a token."""
        if not self._key:
            return None
        time_ms, nonce = str(self._wall_ms()), secrets.token_hex(_NONCE_BYTES)
        mac = self._mac("request", address, target, time_ms, nonce)
        return f"{SCHEME} time={time_ms},nonce={nonce},mac={mac}", nonce

    def verify(self, authorization: str, address: str, target: str) -> str | None:
        """The nonce of a request to an address, None if it is not signed by a worker with the same token."""
        match = _CREDENTIALS.fullmatch(authorization)
        if match is None or not self._key or not address:
            return None
        time_ms, nonce, mac = match.groups()
        is_signed = hmac.compare_digest(mac, self._mac("request", address, target, time_ms, nonce))
        is_recent = abs(self._wall_ms() - int(time_ms)) <= WINDOW_S * 1_000
        return nonce if is_signed and is_recent else None

    def sign_answer(self, nonce: str, body: bytes) -> str:
        """The signature of the answer to a request."""
        return self._mac("answer", nonce, hashlib.sha256(body).hexdigest())

    def is_answer(self, nonce: str, body: bytes, signature: str) -> bool:
        """Whether an answer to a request is that of a worker with the same token."""
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self.sign_answer(nonce, body).encode())

    def _mac(self, *parts: str) -> str:
        text = "\n".join(parts).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, text, "sha256").hexdigest()
