"""The commands in deploy/README.md, as an operator types them."""

import re
import shlex
from typing import Final

from tests.deploy.manifests import DEPLOY

TEXT: Final = (DEPLOY / "README.md").read_text(encoding="utf-8")


def commands(program: str) -> list[list[str]]:
    """The arguments of all command lines of a program, in their order."""
    lines = re.findall(rf"^\$ {re.escape(program)} (.*)$", TEXT, re.MULTILINE)
    return [shlex.split(line) for line in lines]
