"""Mistakes that YAML, kustomize and most checkers accept, planted one by one to see that our checks find them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from tests.deploy.manifests import Manifest, one

Check = str
"""Which checks find a mistake: `server` the API server, `schemas` also the static check, `rules` only promtool."""


class Mistake(Struct, frozen=True):
    """One wrong value in an otherwise good set of manifests."""

    name: str
    kind: str
    plant: Callable[[Any], None]
    message: str
    """A part of the message of the API server, or of promtool: the refusal is for this mistake and no other."""
    found_by: Check = "server"


def _container(statefulset: Any) -> Any:
    return statefulset["spec"]["template"]["spec"]["containers"][0]


def _selector_without_match(manifest: Any) -> None:
    manifest["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "consumer"


def _unknown_volume(manifest: Any) -> None:
    _container(manifest).setdefault("volumeMounts", []).append({"name": "nowhere", "mountPath": "/nowhere"})


def _limit_below_request(manifest: Any) -> None:
    _container(manifest)["resources"]["limits"]["memory"] = "64Mi"


def _unknown_unit(manifest: Any) -> None:
    _container(manifest)["resources"]["requests"]["cpu"] = "250mm"


def _long_port_name(manifest: Any) -> None:
    _container(manifest)["ports"][0]["name"] = "admin-and-metrics"


def _port_range_backwards(manifest: Any) -> None:
    manifest["spec"]["egress"][-1]["ports"][0]["endPort"] = 9_000


def _two_budgets(manifest: Any) -> None:
    manifest["spec"]["minAvailable"] = 1


def _root(manifest: Any) -> None:
    manifest["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False


def _more_than_most(manifest: Any) -> None:
    manifest["spec"]["minReplicaCount"] = 99


def _trigger_of_no_type(manifest: Any) -> None:
    del manifest["spec"]["triggers"][0]["type"]


def _interval_in_words(manifest: Any) -> None:
    manifest["spec"]["podMetricsEndpoints"][0]["interval"] = "15 seconds"


def _rule(expression: str, duration: str) -> Manifest:
    rule = {"alert": "Planted", "expr": expression, "for": duration, "labels": {"severity": "warning"}}
    return {"name": "planted", "rules": [rule]}


def _duration_in_words(manifest: Any) -> None:
    manifest["spec"]["groups"] = [_rule("up == 0", "ten")]


def _broken_expression(manifest: Any) -> None:
    manifest["spec"]["groups"] = [_rule("sum by (partition (conversation_lag_seconds) > 60", "5m")]


def _misspelt_budget(manifest: Any) -> None:
    manifest["spec"]["maxUnavailble"] = manifest["spec"].pop("maxUnavailable")


def _policy_by_number(manifest: Any) -> None:
    manifest["spec"]["podManagementPolicy"] = 1


def _misspelt_replicas(manifest: Any) -> None:
    manifest["spec"]["maxReplicasCount"] = manifest["spec"].pop("maxReplicaCount")


MISTAKES: Final = (
    Mistake("selector-without-match", "StatefulSet", _selector_without_match, "`selector` does not match"),
    Mistake("unknown-volume", "StatefulSet", _unknown_volume, 'volumeMounts[2].name: Not found: "nowhere"'),
    Mistake("limit-below-request", "StatefulSet", _limit_below_request, "must be less than or equal to memory limit"),
    Mistake("unknown-unit", "StatefulSet", _unknown_unit, "unable to parse quantity's suffix"),
    Mistake("long-port-name", "StatefulSet", _long_port_name, "must be no more than 15 characters"),
    Mistake("port-range-backwards", "NetworkPolicy", _port_range_backwards, "must be greater than or equal to `port`"),
    Mistake("two-budgets", "PodDisruptionBudget", _two_budgets, "cannot be both set"),
    Mistake("root", "StatefulSet", _root, "violate PodSecurity"),
    Mistake("more-than-most", "ScaledObject", _more_than_most, "minReplicaCount"),
    Mistake("trigger-of-no-type", "ScaledObject", _trigger_of_no_type, "type: Required value", "schemas"),
    Mistake("interval-in-words", "PodMonitor", _interval_in_words, "interval in body should match", "schemas"),
    Mistake("duration-in-words", "PrometheusRule", _duration_in_words, "for in body should match", "schemas"),
    Mistake("broken-expression", "PrometheusRule", _broken_expression, "could not parse expression", "rules"),
    Mistake("misspelt-budget", "PodDisruptionBudget", _misspelt_budget, "maxUnavailble", "schemas"),
    Mistake("policy-by-number", "StatefulSet", _policy_by_number, "podManagementPolicy", "schemas"),
    Mistake("misspelt-replicas", "ScaledObject", _misspelt_replicas, "maxReplicasCount", "schemas"),
)
"""Thirteen of a comparison of checkers, and three of spelling."""


def plant(mistake: Mistake, good: Sequence[Manifest]) -> list[Manifest]:
    """A copy of the manifests with the mistake."""
    bad = copy.deepcopy(list(good))
    mistake.plant(one(bad, mistake.kind, "conversation-consumer"))
    return bad
