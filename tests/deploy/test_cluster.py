"""A simulated cluster: real controllers and a real scheduler, but nodes and pods that run nothing."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.binaries import HERE, KUBERNETES, TOOLS
from tests.deploy.control_plane import Answer, ControlPlane
from tests.deploy.manifests import DEPLOY, Manifest, one
from tests.deploy.readme import commands

pytestmark = pytest.mark.deep

NODES: Final = ("north", "south")
REPLICAS: Final = 4
COMMANDS: Final = {"create", "apply", "diff", "rollout", "scale"}
_SETTLE_S: Final = 60.0
_POLL_S: Final = 0.2
_SELECTOR: Final = "--selector=app.kubernetes.io/component=worker"


class Workers:
    """The StatefulSet of a namespace."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self._cluster, self._namespace = cluster, f"--namespace={namespace}"
        self._evictions = f"/api/v1/namespaces/{namespace}/pods"

    def kubectl(self, *arguments: str, given: str | None = None) -> Answer:
        return self._cluster.kubectl(self._namespace, *arguments, given=given)

    def must(self, *arguments: str) -> str:
        return self._cluster.must(self._namespace, *arguments)

    def pods(self) -> dict[str, Any]:
        """The pods by name."""
        listed = json.loads(self.must("get", "pods", _SELECTOR, "--output=json"))["items"]
        return {pod["metadata"]["name"]: pod for pod in listed}

    def ready(self) -> list[str]:
        """The names of pods that are ready."""
        return [name for name, pod in self.pods().items() if ("Ready", "True") in _conditions(pod)]

    def nodes(self) -> list[str]:
        return [pod["spec"].get("nodeName", "") for pod in self.pods().values()]

    def allowed(self) -> int:
        """How many disruptions the budget allows now."""
        budget = json.loads(self.must("get", "poddisruptionbudget", "conversation-consumer", "--output=json"))
        return int(budget["status"].get("disruptionsAllowed", 0))

    def evict(self, pod: str) -> Answer:
        """Evict a pod, as a drain does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        return self.kubectl(
            "create", "--raw", f"{self._evictions}/{pod}/eviction", "-f", "-", given=json.dumps(eviction)
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """An API server with controllers, scheduler and two nodes."""
    with ControlPlane(KUBERNETES.build()) as plane:
        plane.install(HERE / "crds")
        plane.simulate(TOOLS.build(), NODES)
        yield plane


@pytest.fixture
def workers(
    cluster: ControlPlane, rendered: dict[str, list[Manifest]], request: pytest.FixtureRequest
) -> Iterator[Workers]:
    """The base with four ready replicas, none of which remains: drains of the next test would wait for it."""
    namespace = cluster.namespace(request.node.name.replace("_", "-")[:60].strip("-"))
    answer = cluster.apply(rendered["base"], f"--namespace={namespace}")
    assert answer.accepted, answer.text
    workers = Workers(cluster, namespace)
    for node in NODES:
        cluster.must("uncordon", node)
    workers.must("scale", "statefulset/conversation-consumer", f"--replicas={REPLICAS}")
    workers.must("rollout", "status", "statefulset/conversation-consumer", f"--timeout={_SETTLE_S:g}s")
    eventually(lambda: workers.allowed() == 1)
    yield workers
    workers.must("scale", "statefulset/conversation-consumer", "--replicas=0")
    eventually(lambda: not workers.pods())


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for the controllers, within a bound."""
    deadline = time.monotonic() + _SETTLE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {_SETTLE_S:g} s"
        time.sleep(_POLL_S)


def test_pods_spread_over_the_zones_and_a_rollout_completes(workers: Workers) -> None:
    assert sorted(workers.nodes()) == ["north", "north", "south", "south"]
    before = {pod["metadata"]["uid"] for pod in workers.pods().values()}
    workers.must("rollout", "restart", "statefulset/conversation-consumer")
    workers.must("rollout", "status", "statefulset/conversation-consumer", "--timeout=55s")
    after = {pod["metadata"]["uid"] for pod in workers.pods().values()}
    assert len(after) == REPLICAS
    assert not before & after


def test_scaling_down_removes_the_last_pods_and_up_starts_all(workers: Workers) -> None:
    workers.must("scale", "statefulset/conversation-consumer", "--replicas=1")
    eventually(lambda: workers.ready() == ["conversation-consumer-0"])
    workers.must("scale", "statefulset/conversation-consumer", "--replicas=12")
    eventually(lambda: len(workers.ready()) == 12)


def test_a_drain_waits_until_the_first_pod_is_back(workers: Workers, cluster: ControlPlane) -> None:
    cluster.must("cordon", "south")  # no node is left: the first pod that is evicted stays pending
    refused = cluster.kubectl("drain", "north", "--timeout=8s")
    assert not refused.accepted
    assert "Cannot evict pod as it would violate the pod's disruption budget" in refused.text
    assert len(workers.ready()) == REPLICAS - 1
    cluster.must("uncordon", "south")
    eventually(lambda: workers.allowed() == 1)
    cluster.must("drain", "north", "--timeout=50s")
    eventually(lambda: len(workers.ready()) == REPLICAS)
    assert set(workers.nodes()) == {"south"}


def test_pods_that_are_not_ready_do_not_block_a_drain(workers: Workers) -> None:
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    broken = ["conversation-consumer-0", "conversation-consumer-1"]
    for name in broken:
        workers.must("patch", "pod", name, "--subresource=status", f"--patch={json.dumps(unready)}")
    eventually(lambda: workers.allowed() == 0)
    refused = workers.evict("conversation-consumer-2")
    assert not refused.accepted
    assert "disruption budget" in refused.text
    for name in broken:
        answer = workers.evict(name)
        assert answer.accepted, answer.text


def test_a_worker_that_is_not_hardened_never_starts(cluster: ControlPlane, rendered: dict[str, list[Manifest]]) -> None:
    namespace = cluster.namespace("not-hardened")
    assert cluster.apply([one(rendered["base"], "ServiceAccount")], f"--namespace={namespace}").accepted
    statefulset = json.loads(json.dumps(one(rendered["base"], "StatefulSet")))
    statefulset["spec"]["template"]["spec"]["securityContext"] = {}
    cluster.must("apply", f"--namespace={namespace}", "-f", "-", given=json.dumps(statefulset))

    def is_refused() -> bool:
        events = json.loads(cluster.must("get", "events", f"--namespace={namespace}", "--output=json"))["items"]
        return any('violates PodSecurity "restricted' in event["message"] for event in events)

    eventually(is_refused)
    assert cluster.must("get", "pods", f"--namespace={namespace}", "--output=name") == ""


def test_the_commands_of_the_readme_run_in_their_order(cluster: ControlPlane, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / DEPLOY.name)
    for secret in ("username", "password", "ca.crt", "key", "token"):
        (tmp_path / secret).write_text("a-secret", encoding="utf-8")
    for node in NODES:
        cluster.must("uncordon", node)
    overlay = tmp_path / DEPLOY.name / "overlays" / "prod" / "kustomization.yaml"
    ran: list[str] = []
    for arguments in commands("kubectl"):
        if "exec" in arguments:  # these pods run nothing; test_readme.py checks these commands
            continue
        if "diff" in arguments:
            released = re.sub(r"newTag: \S+", "newTag: next-release", overlay.read_text(encoding="utf-8"))
            overlay.write_text(released, encoding="utf-8")
        answer = cluster.kubectl(*arguments, folder=tmp_path)
        if "diff" in arguments:
            assert "conversation-consumer:next-release" in answer.text
        else:
            assert answer.accepted, f"kubectl {' '.join(arguments)}: {answer.text}"
        ran.append(next(argument for argument in arguments if argument in COMMANDS))
    assert set(ran) == COMMANDS
    image = cluster.must(
        "-n", "conversations", "get", "statefulset", "conversation-consumer",
        "--output=jsonpath={.spec.template.spec.containers[0].image}",
    )  # fmt: skip
    assert not image.endswith(":next-release"), "the rollback came last"


def _conditions(pod: Any) -> list[tuple[str, str]]:
    return [(condition["type"], condition["status"]) for condition in pod["status"].get("conditions", ())]
