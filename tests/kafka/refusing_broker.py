"""As much of a broker as a client meets until it is authenticated, and every client is refused."""

import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_AUTHENTICATION_FAILED = 58
_VERSIONS = struct.pack(">hi9h", 0, 3, _API_VERSIONS, 0, 0, _HANDSHAKE, 1, 1, _AUTHENTICATE, 0, 0)
_NAMES = (b"PLAIN", b"OAUTHBEARER", b"SCRAM-SHA-256", b"SCRAM-SHA-512")
_MECHANISMS = struct.pack(">hi", 0, len(_NAMES)) + b"".join(
    struct.pack(f">h{len(name)}s", len(name), name) for name in _NAMES
)
_NONCE = b"n,,n=u,r="
"""How a SCRAM client begins, before its nonce."""
_INVALID_TOKEN = b'{"status":"invalid_token"}'
_REFUSED = struct.pack(">hhi", _AUTHENTICATION_FAILED, -1, 0)
_REFUSED_WITHOUT_ERROR = struct.pack(f">hhi{len(_INVALID_TOKEN)}s", 0, -1, len(_INVALID_TOKEN), _INVALID_TOKEN)
"""As RFC 7628 (3.2.2) has a token refused: the error code comes after the client's acknowledgement."""


class _Connection(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while size := self.rfile.read(4):
                request = self.rfile.read(*struct.unpack(">i", size))
                api, _, correlation = struct.unpack_from(">hhi", request)
                response = struct.pack(">i", correlation) + self._respond(api, request)
                self.wfile.write(struct.pack(">i", len(response)) + response)

    def _respond(self, api: int, request: bytes) -> bytes:
        if api == _API_VERSIONS:
            return _VERSIONS
        if api == _HANDSHAKE:
            return _MECHANISMS
        if _NONCE in request:
            challenge = b"r=%sbroker,s=c2FsdA==,i=%d" % (request.partition(_NONCE)[2], self.server.iterations)
            return struct.pack(f">hhi{len(challenge)}s", 0, -1, len(challenge), challenge)
        return _REFUSED_WITHOUT_ERROR if b"auth=Bearer" in request else _REFUSED


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, iterations: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.iterations = iterations


@contextlib.contextmanager
def refusing_broker(iterations: int = 4_096) -> Iterator[str]:
    """The address of a broker that refuses every password (PLAIN, SCRAM) and every token (OAUTHBEARER).

    It asks clients of SCRAM, who must have the name `u`, for so many iterations.
    """
    with _Server(iterations) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
