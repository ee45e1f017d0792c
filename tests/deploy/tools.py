"""Programs that the tests of `deploy/` run, from Debian's packages."""

import os
import shutil

import pytest

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "chromium": "chromium", "pngquant": "pngquant"}


def tool(name: str) -> str:
    """The path of a program. Without it the test is skipped; under CI that is a failure."""
    path = shutil.which(name)
    if path is None:
        missing = f"needs {name}: apt-get install --no-install-recommends {PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path
