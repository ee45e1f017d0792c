"""How much memory the container gives to this process, as Linux says (cgroup v2 and v1)."""

from pathlib import Path
from typing import Final

_UNLIMITED_BYTES: Final = 1 << 60
"""From here on a number of cgroup v1 stands for no limit."""
_RUNTIME_BYTES: Final = 128 * 1024 * 1024
"""For the interpreter, the libraries and the connections: 75 MB with little state."""
_LEAST_BYTES: Final = 16 * 1024 * 1024


def find_limit(root: Path = Path("/")) -> int | None:
    """The least limit of the process's group and of those around it; None if there is none, or none can be read."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            limits += _read_limits(root / "sys/fs/cgroup", group, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _read_limits(root / "sys/fs/cgroup/memory", group, "memory.limit_in_bytes")
    return min(limits, default=None)


def share_of_states(limit: int) -> int:
    """What the states may take of a limit: four fifths of what the runtime leaves.

    The rest is for records and effects on their way, and for what the allocator cannot give back at once.
    """
    return max(_LEAST_BYTES, (limit - _RUNTIME_BYTES) * 4 // 5)


def _read_limits(mount: Path, group: str, name: str) -> list[int]:
    """The limits of a group and of all around it. In a container the mount is the container's own group."""
    folder = mount / group.lstrip("/")
    folders = [place for place in (folder, *folder.parents) if place.is_relative_to(mount)]
    return [limit for place in folders for limit in _read(place / name)]


def _read(file: Path) -> list[int]:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return []
    return [int(text)] if text.isdigit() and int(text) < _UNLIMITED_BYTES else []
