"""A real API server of Kubernetes with its store, on loopback, which can be extended to a simulated cluster."""

import contextlib
import json
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import yaml

from tests.deploy.manifests import Manifest
from tests.sockets import find_free_ports

_READY_S: Final = 90
_KUBECTL_S: Final = 90
_STOP_S: Final = 30
_POLL_S: Final = 0.1
_TOKEN: Final = "admin-of-a-throwaway-cluster"
FIELD_MANAGER: Final = "deploy-check"


class ClusterError(Exception):
    """A process of the cluster did not start. The text has the end of its log."""


class Answer:
    """The output of kubectl, and whether it succeeded."""

    def __init__(self, accepted: bool, text: str) -> None:  # noqa: FBT001 - its only fact
        self.accepted, self.text = accepted, text


class ControlPlane:
    """etcd and kube-apiserver; with `simulate` also the controllers, the scheduler and kwok's nodes.

    1. Every process is in `_processes` from its start until `close` has ended it.
    2. All files are in one temporary folder.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._home = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._etcd, self._peer, self._port = find_free_ports(3)

    def __enter__(self) -> Self:
        try:
            self._start_store()
            self._start_server()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def kubectl(self, *arguments: str, given: str | None = None, folder: Path | None = None) -> Answer:
        """Run kubectl on this server, with the text `given` on its standard input."""
        done = subprocess.run(
            [str(self._binaries / "kubectl"), f"--kubeconfig={self._kubeconfig}", *arguments],
            input=given, cwd=folder, capture_output=True, text=True, timeout=_KUBECTL_S, check=False,
        )  # fmt: skip
        return Answer(done.returncode == 0, done.stdout + done.stderr)

    def must(self, *arguments: str, given: str | None = None) -> str:
        """As `kubectl`, but returns the output, and raises AssertionError with it if kubectl failed."""
        answer = self.kubectl(*arguments, given=given)
        assert answer.accepted, f"kubectl {' '.join(arguments)}: {answer.text}"
        return answer.text

    def apply(self, manifests: Sequence[Manifest], *options: str) -> Answer:
        """Apply manifests as an upgrade does. A warning, such as one of Pod Security, is a refusal."""
        text = yaml.safe_dump_all(manifests)
        strict = ("--server-side", "--validate=strict", "--warnings-as-errors", f"--field-manager={FIELD_MANAGER}")
        return self.kubectl("apply", *strict, *options, "-f", "-", given=text)

    def install(self, definitions: Path) -> None:
        """Install a folder's CustomResourceDefinitions, and wait until the server knows their kinds."""
        self.must("apply", "--server-side", "-f", str(definitions))
        self.must("wait", "--for=condition=Established", "crd", "--all", f"--timeout={_READY_S}s")

    def namespace(self, name: str) -> str:
        """Create a namespace that enforces the Pod Security standard `restricted`; returns its name."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.must("apply", "--server-side", "-f", "-", given=json.dumps(manifest))
        return name

    def simulate(self, tools: Path, nodes: Sequence[str]) -> None:
        """Add controllers, scheduler and kwok, and a node per zone. Nodes make pods ready without running them."""
        kubeconfig = f"--kubeconfig={self._kubeconfig}"
        controllers, scheduler, kwok = find_free_ports(3)
        certificates = f"--cert-dir={self._home / 'certificates'}"
        loopback = ("--leader-elect=false", "--bind-address=127.0.0.1", certificates)
        key = f"--service-account-private-key-file={self._home / 'accounts.key'}"
        self._start("kube-controller-manager", kubeconfig, key, f"--secure-port={controllers}", *loopback)
        self._start("kube-scheduler", kubeconfig, f"--secure-port={scheduler}", *loopback)
        self._start(
            "kwok", kubeconfig, "--manage-all-nodes=true", f"--config={tools / 'stages.yaml'}",
            "--node-ip=127.0.0.1", "--node-lease-duration-seconds=0", f"--server-address=127.0.0.1:{kwok}",
            folder=tools,
        )  # fmt: skip
        for number, name in enumerate(nodes):
            labels = {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": f"zone-{number}",
                "type": "kwok",
            }
            metadata = {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}
            self.must("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": metadata}))
        self.must("wait", "--for=condition=Ready", "node", "--all", f"--timeout={_KUBECTL_S - 5}s")

    def close(self) -> None:
        """Kill every process and remove all files. An orderly end would take the server 20 s."""
        for _, process in self._processes:
            process.kill()
        for _, process in self._processes:
            process.wait(_STOP_S)
        self._processes.clear()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _kubeconfig(self) -> Path:
        return self._home / "kubeconfig"

    def _start_store(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._start(
            "etcd", f"--data-dir={self._home / 'etcd'}", f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}", "--unsafe-no-fsync",
            "--log-level=error",
        )  # fmt: skip

    def _start_server(self) -> None:
        key = self._home / "accounts.key"
        subprocess.run(
            ["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=_STOP_S
        )
        tokens = self._home / "tokens.csv"
        tokens.write_text(f'{_TOKEN},admin,1,"system:masters"\n', encoding="utf-8")
        self._start(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd}", f"--secure-port={self._port}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={self._home / 'certificates'}",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24",
            f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
        )  # fmt: skip
        server = f"https://127.0.0.1:{self._port}"
        self._await_ready(server)
        certificate = self._home / "certificates" / "apiserver.crt"
        self._kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "only",
                    "contexts": [{"name": "only", "context": {"cluster": "only", "user": "admin"}}],
                    "users": [{"name": "admin", "user": {"token": _TOKEN}}],
                    "clusters": [
                        {"name": "only", "cluster": {"server": server, "certificate-authority": str(certificate)}}
                    ],
                }
            ),
            encoding="utf-8",
        )

    def _await_ready(self, server: str) -> None:
        context = ssl._create_unverified_context()  # the server has not written its certificate yet
        request = urllib.request.Request(f"{server}/readyz", headers={"Authorization": f"Bearer {_TOKEN}"})
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            self._raise_if_any_ended()
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(request, timeout=_STOP_S, context=context) as answer,
            ):
                if answer.read() == b"ok":
                    return
            time.sleep(_POLL_S)
        raise ClusterError(f"the API server was not ready in {_READY_S} s: {self._tail('kube-apiserver')}")

    def _start(self, name: str, *arguments: str, folder: Path | None = None) -> None:
        with (self._home / f"{name}.log").open("ab") as log:
            command = [str((folder or self._binaries) / name), *arguments]
            self._processes.append((name, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))

    def _raise_if_any_ended(self) -> None:
        for name, process in self._processes:
            if process.poll() is not None:
                raise ClusterError(f"{name} ended with {process.returncode}: {self._tail(name)}")

    def _tail(self, name: str) -> str:
        return (self._home / f"{name}.log").read_text(errors="replace")[-4_000:]
