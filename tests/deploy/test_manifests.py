"""The manifests agree with the code and with each other."""

import re
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry

from consumer.__main__ import main
from consumer.adapters.kafka import group
from consumer.adapters.kafka.topic_checks import plans
from consumer.adapters.web import bounded_http
from consumer.adapters.web.admin import AdminServer
from consumer.runtime.settings import Settings, described, parse
from tests.deploy.manifests import DEPLOY, EVERYTHING, OVERLAYS, ROOT, Manifest, of_kind, one, pod_templates

MARGIN_S = 10
"""Beyond all that is bounded: scheduling, and what a slow node adds."""
FILES = sorted(
    each for each in DEPLOY.rglob("*") if each.is_file() and "__pycache__" not in each.parts and each.suffix != ".png"
)
VARIABLES = {name for name, _, _ in described()}
Rendered = dict[str, list[Manifest]]


def worker(manifests: list[Manifest]) -> Any:
    """The pod template of the worker."""
    return one(manifests, "StatefulSet")["spec"]["template"]


def environment(manifests: list[Manifest], template: Any) -> dict[str, str]:
    """What the only container of a pod finds in its environment."""
    (container,) = template["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for each in container.get("env", ()):
        found[each["name"]] = each.get("value", "from-the-pod")
    return found


def mounted(template: Any, path: str) -> str:
    """A file's text, if the only container of a pod mounts a Secret where it should be."""
    (container,) = template["spec"]["containers"]
    volumes = {each["name"]: each for each in template["spec"].get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        if Path(path).parent == Path(mount["mountPath"]):
            assert volumes[mount["name"]].keys() & {"secret", "projected"}
            return "a-secret"
    raise FileNotFoundError(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\bCC_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8")))
    assert {name for name in named if name not in VARIABLES and name.removesuffix("_FILE") not in VARIABLES} == set()


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_settings_of_every_pod_are_valid_and_its_files_are_mounted(rendered: Rendered, name: str) -> None:
    for template in pod_templates(rendered[name]):
        environ = {"CC_BOOTSTRAP_SERVERS": "kafka:9092", **environment(rendered[name], template)}
        settings = parse(environ, lambda path, template=template: mounted(template, path))  # type: ignore[misc]
        for path in (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file):
            assert not path or mounted(template, path)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_names_the_brokers(rendered: Rendered, name: str) -> None:
    manifests = rendered[f"overlay-{name}"]
    assert environment(manifests, worker(manifests))["CC_BOOTSTRAP_SERVERS"]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_pod_is_given_longer_than_a_drain_takes(rendered: Rendered, name: str) -> None:
    template = worker(rendered[name])
    environ = environment(rendered[name], template)
    drain_s = float(environ.get("CC_DRAIN_S", Settings(bootstrap_servers="x").drain_s))
    bounded_s = drain_s + group._STOP_S + 2 * bounded_http._STOP_S
    assert template["spec"]["terminationGracePeriodSeconds"] >= bounded_s + MARGIN_S


async def test_the_probes_ask_for_what_is_served(rendered: Rendered) -> None:
    (container,) = worker(rendered["base"])["spec"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    (monitor,) = of_kind(rendered["component-monitoring"], "PodMonitor")
    (scraped,) = monitor["spec"]["podMetricsEndpoints"]
    server = AdminServer(CollectorRegistry(), dict, dict, lambda _: None)
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path in (*(each["path"] for each in probes), scraped["path"]):
                async with session.get(path) as answer:
                    assert answer.status == 200, path
    finally:
        await server.stop()
    assert [each["path"] for each in probes] == ["/livez", "/livez", "/readyz"]
    names = {each["name"] for each in container["ports"]}
    assert {*(each["port"] for each in probes), scraped["port"]} == names == {"admin"}


def test_the_admin_port_is_the_same_everywhere_and_open_to_the_node(rendered: Rendered) -> None:
    manifests = rendered["overlay-prod"]
    environ = environment(manifests, worker(manifests))
    (container,) = worker(manifests)["spec"]["containers"]
    (policy,) = [each for each in of_kind(manifests, "NetworkPolicy") if each["spec"].get("ingress")]
    ports = {
        int(environ["CC_ADMIN_PORT"]),
        container["ports"][0]["containerPort"],
        one(manifests, "Service")["spec"]["ports"][0]["port"],
        policy["spec"]["ingress"][0]["ports"][0]["port"],
    }
    assert len(ports) == 1
    assert environ["CC_ADMIN_HOST"] == "0.0.0.0"


def test_selectors_find_the_workers_and_not_the_job_that_makes_topics(rendered: Rendered) -> None:
    manifests = rendered["overlay-prod"]
    statefulset, job = (each["metadata"]["labels"].items() for each in pod_templates(manifests))
    selectors = [
        one(manifests, "Service")["spec"]["selector"],
        *(one(manifests, kind)["spec"]["selector"]["matchLabels"] for kind in ("PodDisruptionBudget", "PodMonitor")),
    ]
    for selector in selectors:
        assert selector.items() <= statefulset
        assert not selector.items() <= job


def test_the_job_label_is_that_of_the_rules(rendered: Rendered) -> None:
    monitor = one(rendered["component-monitoring"], "PodMonitor")
    labels = worker(rendered["component-monitoring"])["metadata"]["labels"]
    assert labels[monitor["spec"]["jobLabel"]] == "conversation-consumer"


def test_a_budget_lets_one_worker_go_at_a_time_and_a_broken_one_at_once(rendered: Rendered) -> None:
    spec = one(rendered["base"], "PodDisruptionBudget")["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize("name", EVERYTHING)
def test_arguments_are_of_a_command_that_the_program_has(rendered: Rendered, name: str) -> None:
    for template in pod_templates(rendered[name]):
        command, *arguments = template["spec"]["containers"][0]["args"]
        main.commands[command].make_context(command, arguments)


def test_the_autoscaler_reads_what_the_pod_has_and_stops_at_the_partitions(rendered: Rendered) -> None:
    manifests = rendered["overlay-prod"]
    scaled = one(manifests, "ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    environ = environment(manifests, worker(manifests))
    named = {value for name, value in trigger["metadata"].items() if name.endswith("FromEnv")}
    assert named == {"CC_BOOTSTRAP_SERVERS", "CC_GROUP_ID", "CC_INPUT_TOPIC"}
    assert named <= environ.keys()
    (job,) = of_kind(manifests, "CronJob")
    arguments = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--partitions={scaled['maxReplicaCount']}" in arguments
    assert scaled["minReplicaCount"] == 1
    assert "replicas" not in one(manifests, "StatefulSet")["spec"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_told_for_the_autoscaler_is_the_default(name: str, rendered: Rendered) -> None:
    manifests = rendered[f"overlay-{name}"]
    environ, default = environment(manifests, worker(manifests)), Settings(bootstrap_servers="x")
    assert (environ["CC_GROUP_ID"], environ["CC_INPUT_TOPIC"]) == (default.group_id, default.input_topic)


@pytest.mark.parametrize("name", EVERYTHING)
def test_static_members_are_not_scaled_by_lag(rendered: Rendered, name: str) -> None:
    manifests = rendered[name]
    static = "CC_GROUP_INSTANCE_ID" in environment(manifests, worker(manifests))
    assert not (static and of_kind(manifests, "ScaledObject"))


def test_a_static_member_has_the_name_of_its_pod(rendered: Rendered) -> None:
    (container,) = worker(rendered["component-static-membership"])["spec"]["containers"]
    (variable,) = [each for each in container["env"] if each["name"] == "CC_GROUP_INSTANCE_ID"]
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_operators_topics_are_those_that_the_command_would_make(rendered: Rendered) -> None:
    topics = {each["metadata"]["name"]: each["spec"] for each in of_kind(rendered["component-strimzi"], "KafkaTopic")}
    wanted = plans(Settings(bootstrap_servers="x"))
    assert topics.keys() == {plan.name for plan in wanted}
    for plan in wanted:
        assert plan.configs.items() <= topics[plan.name]["config"].items()
    assert len({spec["partitions"] for spec in topics.values()}) == 1


def test_the_operators_user_may_do_what_the_readme_lists(rendered: Rendered) -> None:
    acls = one(rendered["component-strimzi"], "KafkaUser")["spec"]["authorization"]["acls"]
    granted = {(each["resource"]["type"], each["resource"]["name"]): set(each["operations"]) for each in acls}
    settings = Settings(bootstrap_servers="x")
    everywhere = {"Describe", "DescribeConfigs"}
    prefix = f"{settings.group_id}:{settings.input_topic}:"
    assert granted == {
        ("topic", settings.input_topic): {"Read"} | everywhere,
        ("topic", settings.state_topic): {"Read", "Write"} | everywhere,
        ("topic", settings.transitions_topic): {"Read", "Write"} | everywhere,
        ("topic", settings.dead_letters_topic): {"Read", "Write"} | everywhere,
        ("group", settings.group_id): {"Read", "Describe"},
        ("transactionalId", prefix): {"Write", "Describe"},
    }


def test_the_dashboards_are_found_by_grafanas_sidecar(rendered: Rendered) -> None:
    manifests = rendered["component-monitoring"]
    dashboards = one(manifests, "ConfigMap", "conversation-consumer-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["data"].keys() == {"conversations.json", "pipeline.json"}


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kustomizations = [
        yaml.safe_load((DEPLOY / "overlays" / name / "kustomization.yaml").read_text(encoding="utf-8"))
        for name in OVERLAYS
    ]
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    tags = {each["images"][0]["newTag"] for each in kustomizations}
    assert tags == {project["version"]} == set(re.findall(r"^ARG VERSION=(.*)$", dockerfile, re.MULTILINE))
