"""Files that hold secrets: read within bounds, and named only where a name cannot be the secret itself."""

import os
import stat
from pathlib import Path
from typing import Final

BYTES_MAX: Final = 1_048_576
"""The largest such file: a bundle of all public authorities is a fifth of that."""
_UNNAMED: Final = "the file it names"


class FileUnusableError(OSError):
    """A file is no regular one, or too large. The text says which, and nothing else."""


def read(path: str, bytes_max: int = BYTES_MAX) -> bytes:
    """The content of a regular file. Raises OSError; for a device, a pipe and a larger file FileUnusableError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its other end
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a Path takes no descriptor
        _check(os.fstat(descriptor), bytes_max)
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise FileUnusableError(_describe_excess(bytes_max))
    return content


def check(path: str, bytes_max: int = BYTES_MAX) -> None:
    """Raise what `read` would raise for a file that is read elsewhere."""
    _check(os.stat(path), bytes_max)  # noqa: PTH116 - a Path would add nothing


def _check(status: os.stat_result, bytes_max: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileUnusableError("it is no regular file")
    if status.st_size > bytes_max:
        raise FileUnusableError(_describe_excess(bytes_max))


def _describe_excess(bytes_max: int) -> str:
    return f"it is larger than {bytes_max} bytes"


def name_file(path: str) -> str:
    """The name in quotes where there is such a file, or at least its folder.

    Any other name may be a secret that was given instead of its file.
    """
    folder = Path(path).parent
    try:
        is_name = os.path.lexists(path) or (folder.is_absolute() and folder != folder.parent and folder.is_dir())
    except (OSError, ValueError):
        is_name = False
    return repr(path) if is_name else _UNNAMED


def describe_error(error: Exception) -> str:
    """Why a file cannot be used, without its name or content."""
    return str(error) if isinstance(error, FileUnusableError) else type(error).__name__


def is_exposed(path: str) -> bool:
    """Whether every user of this machine may read a file. One that cannot be looked at is not."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)  # noqa: PTH116 - a Path would add nothing
    except (OSError, ValueError):
        return False
