"""Fixtures for the tests of deploy/, and a last line of output that says how the manifests were checked."""

import os
from collections.abc import Iterator

import pytest

from tests.deploy.binaries import HERE, KUBERNETES, KUBERNETES_VERSION
from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import Manifest, everything, renderer
from tests.live.conftest import kafka, unique_name

__all__ = ("kafka", "unique_name")

_NOT_BUILT = "its commands are not in the cache: `make deploy-check` builds them"


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """All sets of manifests that can be applied, by name."""
    if renderer() is None:
        reason = "the manifests cannot be rendered: neither Go's cache nor the machine has kubectl or kustomize"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return everything()


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """A real API server that knows all custom resources used here."""
    binaries = KUBERNETES.cached()
    if binaries is None:
        pytest.skip(f"no API server: {_NOT_BUILT}")
    with ControlPlane(binaries) as server:
        server.install(HERE / "crds")
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the manifests were checked, since a run without the API server checks less."""
    if KUBERNETES.cached() is None:
        summary = f"NOT applied to a Kubernetes API server, only compared with schemas: {_NOT_BUILT}"
    else:
        summary = f"applied to a real Kubernetes API server, v{KUBERNETES_VERSION}"
    terminalreporter.write_line(f"deploy/: {summary}")
