"""The version of this service, in a source checkout as well as installed.

A checkout is asked first: the metadata of an editable install, or of a build that left its `*.egg-info` behind, may be
older than the code beside it.
"""

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

_NAME: Final = "conversation-consumer"
_UNKNOWN: Final = "0+unknown"


def find_version(folder: Path) -> str:
    """The version of the package in `folder`: by the `pyproject.toml` there, else by the installed metadata."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except OSError:
        project = {}
    if project.get("name") == _NAME:  # other packages have left a file of this name in site-packages before
        return str(project["version"])
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError:
        return _UNKNOWN


VERSION: Final = find_version(Path(__file__).parent.parent)
