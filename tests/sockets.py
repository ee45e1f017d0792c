"""Where a process listens, by what the system says of it; and where another may."""

import contextlib
import random
import socket
from pathlib import Path

_LISTENING = "0A"  # of the states in /proc/net/tcp


def listening(pid: int | str = "self") -> dict[int, str]:
    """Addresses, as the system writes them, on which a process accepts connections, by port."""
    mine = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    local = [row[1].split(":") for row in rows if row[3] == _LISTENING and f"socket:[{row[9]}]" in mine]
    return {int(port, 16): address for address, port in local}


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nothing listens.

    The system gives a port of its own choice to the next connection that anybody makes, once the socket is closed that
    found it, and then no server can have it. These are drawn at random from those below, which it gives to nobody.
    """
    chosen_by_system = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    end = int(chosen_by_system[0])
    candidates = list(range(10_000, end if end > 20_000 else 65_536))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    while len(found) < count:
        port = candidates.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
