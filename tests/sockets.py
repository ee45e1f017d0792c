"""Where a process listens, by what the system says of it."""

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
