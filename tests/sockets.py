"""The ports on which a process listens, from /proc, and ports that are free."""

import contextlib
import functools
import os
import random
import socket
from pathlib import Path

_LISTENING = "0A"  # of the states in /proc/net/tcp


def find_listeners(pid: int | str = "self") -> dict[int, str]:
    """By port, the addresses on which a process accepts connections, in the hexadecimal form of /proc/net/tcp."""
    mine = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    local = [row[1].split(":") for row in rows if row[3] == _LISTENING and f"socket:[{row[9]}]" in mine]
    return {int(port, 16): address for address, port in local}


def find_free_ports(count: int) -> list[int]:
    """Loopback ports on which nothing listens, each given once.

    They are drawn at random from below the ephemeral range: the system may give a port of that range to an outgoing
    connection before a server binds it. Processes of pytest-xdist draw from shares of their own.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = _candidates().pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


@functools.cache
def _candidates() -> list[int]:
    """This process's share of the ports, in random order."""
    chosen_by_system = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    end = int(chosen_by_system[0])
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    candidates = list(range(10_000, end if end > 20_000 else 65_536))[int(worker.removeprefix("gw")) :: int(workers)]
    random.SystemRandom().shuffle(candidates)
    return candidates
