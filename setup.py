"""How the wheel is packed; all else is in pyproject.toml.

setuptools has no option for `.dist-info/sboms` (PEP 770), and of a command that pyproject.toml names setuptools-rust
would not know. The folder of the sources is not on the path here, so nothing of them is imported.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

_BILL = Path(__file__).parent / "generate" / "bill.py"
_BILL_S = 60


class PackWheel(bdist_wheel):
    """Adds the bill of materials. The same sources and `SOURCE_DATE_EPOCH` give the same bytes, whatever the umask."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: str) -> None:
        """Complete the `.dist-info` in `wheelfile_base`; after it the files are packed."""
        super().write_wheelfile(wheelfile_base, *arguments)
        unpacked = Path(self.bdist_dir)
        if any(unpacked.glob("consumer/engine/_native*.so")):
            bill = Path(wheelfile_base) / "sboms" / "engine.cdx.json"
            bill.parent.mkdir()
            command = [sys.executable, str(_BILL), "--crates"]
            bill.write_bytes(subprocess.run(command, check=True, capture_output=True, timeout=_BILL_S).stdout)  # noqa: S603 - a file of ours
        for path in unpacked.rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)


setup(cmdclass={"bdist_wheel": PackWheel})
