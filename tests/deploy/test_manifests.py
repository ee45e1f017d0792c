"""The manifests agree with the code and among themselves."""

import ipaddress
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry

from consumer.__main__ import main
from consumer.environment import describe_all, parse
from consumer.kafka import group_consumer
from consumer.kafka.acls import autoscaler_grants
from consumer.preflight.topic_checks import plans
from consumer.settings import Settings, is_unspecified
from consumer.web import bounded_http
from consumer.web.admin_port import AdminServer
from tests.deploy.manifests import DEPLOY, EVERYTHING, OVERLAYS, ROOT, Manifest, of_kind, one, pod_templates, render

MARGIN_S = 10
"""On top of everything with a bound: scheduling, and the delays of a slow node."""
FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".png"
)
VARIABLES = {name for name, _, _ in describe_all()}
Rendered = dict[str, list[Manifest]]


def worker(manifests: list[Manifest]) -> Any:
    """The pod template of the worker."""
    return one(manifests, "StatefulSet")["spec"]["template"]


def environment(manifests: list[Manifest], template: Any) -> dict[str, str]:
    """The environment of the only container of a pod."""
    (container,) = template["spec"]["containers"]
    environ: dict[str, str] = {}
    for source in container["envFrom"]:
        environ |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        environ[variable["name"]] = variable.get("value", "from-the-pod")
    return environ


def read_mounted(template: Any, path: str) -> str:
    """The text of a file in a Secret that the only container of a pod mounts. Raises FileNotFoundError."""
    (container,) = template["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        if Path(path).parent == Path(mount["mountPath"]):
            assert volumes[mount["name"]].keys() & {"secret", "projected"}
            return "a-secret-of-the-tests"
    raise FileNotFoundError(path)


def test_every_setting_has_a_reason_to_change_it() -> None:
    """What an operator has no reason to change belongs into `Tuning`."""
    section = (DEPLOY / "README.md").read_text(encoding="utf-8").split("## Settings that matter\n")[1].split("\n## ")[0]
    reasons = re.findall(r"^\| ([^|]*`CC_[^|]*) \| (\w[^|]*|`[^|]*) \|$", section, re.MULTILINE)
    named = [name for names, _ in reasons for name in re.findall(r"CC_[A-Z_]+", names)]
    assert sorted(named) == sorted(VARIABLES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\bCC_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8")))
    assert {name for name in named if name not in VARIABLES and name.removesuffix("_FILE") not in VARIABLES} == set()


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_pod_has_valid_settings_and_mounts_its_files(rendered: Rendered, name: str) -> None:
    for template in pod_templates(rendered[name]):
        environ = {"CC_BOOTSTRAP_SERVERS": "kafka:9092", **environment(rendered[name], template)}
        settings = parse(environ, lambda path, template=template: read_mounted(template, path))  # type: ignore[misc]
        for path in (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file):
            assert not path or read_mounted(template, path)


@pytest.mark.parametrize("variable", ["CC_DIGEST_KEY_FILE", "CC_QUERY_TOKEN_FILE"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_key_and_token_are_secrets(rendered: Rendered, name: str, variable: str) -> None:
    template = worker(rendered[name])
    path = Path(environment(rendered[name], template)[variable])
    (mount,) = [
        mount for mount in template["spec"]["containers"][0]["volumeMounts"] if mount["mountPath"] == str(path.parent)
    ]
    (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"]["secretName"].startswith(f"conversation-consumer-{path.parent.name}")
    assert not volume["secret"].get("optional")
    assert not volume["secret"]["defaultMode"] & 0o007


def test_the_secrets_of_development_are_made_with_its_overlay(rendered: Rendered) -> None:
    made = {tuple(secret["data"]): secret["metadata"]["name"] for secret in of_kind(rendered["overlay-dev"], "Secret")}
    mounted = {volume["secret"]["secretName"] for volume in worker(rendered["overlay-dev"])["spec"]["volumes"]}
    assert made.keys() == {("key",), ("token",)}
    assert mounted == {*made.values()}


@pytest.mark.parametrize("name", EVERYTHING)
def test_workers_advertise_the_addresses_of_their_pods(rendered: Rendered, name: str) -> None:
    """The advertised query port is the one that is served, and that the policy opens."""
    template = worker(rendered[name])
    (container,) = template["spec"]["containers"]
    (advertised,) = [variable for variable in container["env"] if variable["name"] == "CC_QUERY_ADVERTISED"]
    assert advertised["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    environ = {"CC_BOOTSTRAP_SERVERS": "kafka:9092", **environment(rendered[name], template)}
    settings = parse(environ, lambda path: read_mounted(template, path))
    assert is_unspecified(settings.query_host)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["query"] == settings.query_port
    service = {port["name"]: port["port"] for port in one(rendered[name], "Service")["spec"]["ports"]}
    assert service == ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_workers_reach_the_query_port(rendered: Rendered, overlay: str) -> None:
    (policy,) = [p for p in of_kind(rendered[f"overlay-{overlay}"], "NetworkPolicy") if p["spec"].get("ingress")]
    labels = worker(rendered["base"])["metadata"]["labels"].items()
    for rules, peers in ((policy["spec"]["ingress"], "from"), (policy["spec"]["egress"], "to")):
        (rule,) = [rule for rule in rules if [port["port"] for port in rule["ports"]] == [8081]]
        (peer,) = rule[peers]
        assert peer.keys() == {"podSelector"}, "of the same namespace"
        assert peer["podSelector"]["matchLabels"].items() <= labels


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_names_the_brokers(rendered: Rendered, name: str) -> None:
    manifests = rendered[f"overlay-{name}"]
    assert environment(manifests, worker(manifests))["CC_BOOTSTRAP_SERVERS"]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_pod_has_more_time_than_a_drain_takes(rendered: Rendered, name: str) -> None:
    template = worker(rendered[name])
    environ = environment(rendered[name], template)
    drain_s = float(environ.get("CC_DRAIN_S", Settings(bootstrap_servers="x").drain_s))
    bounded_s = drain_s + group_consumer._STOP_S + 2 * bounded_http._STOP_S
    assert template["spec"]["terminationGracePeriodSeconds"] >= bounded_s + MARGIN_S


async def test_the_probes_ask_for_served_paths(rendered: Rendered) -> None:
    (container,) = worker(rendered["base"])["spec"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    (monitor,) = of_kind(rendered["component-monitoring"], "PodMonitor")
    (scraped,) = monitor["spec"]["podMetricsEndpoints"]
    server = AdminServer(CollectorRegistry(), dict, dict, lambda _: None)
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path in (*(probe["path"] for probe in probes), scraped["path"]):
                async with session.get(path) as answer:
                    assert answer.status == 200, path
    finally:
        await server.stop()
    assert [probe["path"] for probe in probes] == ["/livez", "/livez", "/readyz"]
    names = {port["name"] for port in container["ports"]}
    assert {*(probe["port"] for probe in probes), scraped["port"]} == {"admin"}
    assert names == {"admin", "query"}


def test_the_admin_port_is_the_same_everywhere(rendered: Rendered) -> None:
    manifests = rendered["overlay-prod"]
    environ = environment(manifests, worker(manifests))
    (container,) = worker(manifests)["spec"]["containers"]
    (policy,) = [policy for policy in of_kind(manifests, "NetworkPolicy") if policy["spec"].get("ingress")]
    ports = {
        int(environ["CC_ADMIN_PORT"]),
        container["ports"][0]["containerPort"],
        one(manifests, "Service")["spec"]["ports"][0]["port"],
        policy["spec"]["ingress"][0]["ports"][0]["port"],
    }
    assert len(ports) == 1
    assert environ["CC_ADMIN_HOST"] == "0.0.0.0"


def test_production_reaches_named_addresses_only(rendered: Rendered) -> None:
    """And the name servers of the cluster."""
    policies = of_kind(rendered["overlay-prod"], "NetworkPolicy")
    names, brokers, workers = [rule for policy in policies for rule in policy["spec"].get("egress", ())]
    assert [sorted(peer) for peer in workers["to"]] == [["podSelector"]]
    assert [sorted(peer) for peer in names["to"]] == [["namespaceSelector"]]
    assert {port["port"] for port in names["ports"]} == {53}
    (peer,) = brokers["to"]
    assert peer.keys() == {"ipBlock"}
    assert ipaddress.ip_network(peer["ipBlock"]["cidr"]).num_addresses <= 256
    assert all("Egress" in policy["spec"]["policyTypes"] for policy in policies)


def test_the_autoscaler_has_a_user_that_reads_nothing(rendered: Rendered) -> None:
    authentication = one(rendered["overlay-prod"], "TriggerAuthentication")["spec"]["secretTargetRef"]
    mounted = {volume["secret"]["secretName"] for volume in worker(rendered["overlay-prod"])["spec"]["volumes"]}
    assert {secret["name"] for secret in authentication} == {"conversation-consumer-keda"}
    assert "conversation-consumer-keda" not in mounted
    acls = one(rendered["component-strimzi"], "KafkaUser", "conversation-lag-reader")["spec"]["authorization"]["acls"]
    granted = {(acl["resource"]["type"], acl["resource"]["name"]): tuple(acl["operations"]) for acl in acls}
    needed = autoscaler_grants(Settings(bootstrap_servers="x"))
    assert granted == {(grant.resource, grant.name): grant.operations for grant in needed}
    assert set(granted.values()) == {("Describe",)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_scraper_reaches_the_admin_port(rendered: Rendered, overlay: str) -> None:
    """And the kubelet of the pod's node, which no policy can shut out."""
    policies = of_kind(rendered[f"overlay-{overlay}"], "NetworkPolicy")
    (container,) = worker(rendered["base"])["spec"]["containers"]
    (admin,) = [port["containerPort"] for port in container["ports"] if port["name"] == "admin"]
    rules = [rule for policy in policies for rule in policy["spec"].get("ingress", ())]
    (rule,) = [rule for rule in rules if admin in [port["port"] for port in rule["ports"]]]
    assert [sorted(peer) for peer in rule["from"]] == [["namespaceSelector", "podSelector"]]
    assert all("Ingress" in policy["spec"]["policyTypes"] for policy in policies)
    assert [port["port"] for port in rule["ports"]] == [admin]


def test_selectors_match_the_workers_and_not_the_topics_job(rendered: Rendered) -> None:
    manifests = rendered["overlay-prod"]
    statefulset, job = (template["metadata"]["labels"].items() for template in pod_templates(manifests))
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


def test_a_budget_allows_one_eviction_and_any_of_unready_pods(rendered: Rendered) -> None:
    spec = one(rendered["base"], "PodDisruptionBudget")["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize("name", EVERYTHING)
def test_arguments_are_valid(rendered: Rendered, name: str) -> None:
    for template in pod_templates(rendered[name]):
        command, *arguments = template["spec"]["containers"][0]["args"]
        main.commands[command].make_context(command, arguments)


def test_autoscaler_has_its_variables_and_stops_at_partitions(rendered: Rendered) -> None:
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
def test_variables_of_the_autoscaler_are_the_defaults(name: str, rendered: Rendered) -> None:
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
    (variable,) = [variable for variable in container["env"] if variable["name"] == "CC_GROUP_INSTANCE_ID"]
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_operators_topics_are_those_of_the_command(rendered: Rendered) -> None:
    topics = {
        topic["metadata"]["name"]: topic["spec"] for topic in of_kind(rendered["component-strimzi"], "KafkaTopic")
    }
    wanted = plans(Settings(bootstrap_servers="x"))
    assert topics.keys() == {plan.name for plan in wanted}
    for plan in wanted:
        assert plan.configs.items() <= topics[plan.name]["config"].items()
    assert len({spec["partitions"] for spec in topics.values()}) == 1


def test_the_operators_user_may_do_what_the_readme_lists(rendered: Rendered) -> None:
    acls = one(rendered["component-strimzi"], "KafkaUser", "conversation-consumer")["spec"]["authorization"]["acls"]
    granted = {(acl["resource"]["type"], acl["resource"]["name"]): set(acl["operations"]) for acl in acls}
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
    tags = {kustomization["images"][0]["newTag"] for kustomization in kustomizations}
    assert tags == {project["version"]} == set(re.findall(r"^ARG VERSION=(.*)$", dockerfile, re.MULTILINE))


def test_the_overlay_sets_the_address_of_the_runbook_in_one_place(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    overlay = tmp_path / "deploy" / "overlays" / "prod"
    file, address = overlay / "runbook.yaml", "https://wiki.example/runbook"
    published = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["url"]
    file.write_text(file.read_text(encoding="utf-8").replace(published, address), encoding="utf-8")
    manifests = render(overlay)
    rules = [rule for group in one(manifests, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}
    assert alerts == {name: f"{address}#{name.lower()}" for name in alerts}
    assert [rule["labels"]["url"] for rule in rules if "url" in rule.get("labels", ())] == [address]
    assert published not in yaml.safe_dump_all(manifests)
