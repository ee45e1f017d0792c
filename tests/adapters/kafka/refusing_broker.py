"""As much of a broker as a client meets before it is let in, and this one lets nobody in."""

import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_AUTHENTICATION_FAILED = 58
_ANSWERS = {
    _API_VERSIONS: struct.pack(">hi9h", 0, 3, _API_VERSIONS, 0, 0, _HANDSHAKE, 1, 1, _AUTHENTICATE, 0, 0),
    _HANDSHAKE: struct.pack(">hih5s", 0, 1, 5, b"PLAIN"),
    _AUTHENTICATE: struct.pack(">hhi", _AUTHENTICATION_FAILED, -1, 0),
}


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while size := self.rfile.read(4):
                request = self.rfile.read(*struct.unpack(">i", size))
                api, _, correlation = struct.unpack_from(">hhi", request)
                answer = struct.pack(">i", correlation) + _ANSWERS[api]
                self.wfile.write(struct.pack(">i", len(answer)) + answer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def refusing_broker() -> Iterator[str]:
    """The address of a broker that takes SASL PLAIN and refuses every password."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
