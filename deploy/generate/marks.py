"""The annotations of both dashboards: what else happened at the time of a bend in a line."""

from typing import Final

from deploy.generate.panels import Mark

MARKS: Final = (
    Mark(
        name="Deploys",
        expr="count by (version) (conversation_build_info{$scope} "
        "and on (namespace, job, instance) time() - process_start_time_seconds{$scope} < 60)",
        text="Workers started with version {{version}}.",
        color="blue",
    ),
    Mark(
        name="Rebalances",
        expr='max(increase(conversation_rebalances_total{$scope, kind="assigned"}[1m])) > 0',
        text="The group assigned its partitions.",
        color="yellow",
    ),
    Mark(
        name="Breaker",
        expr="max by (partition) (conversation_breaker_open{$scope}) == 1",
        text="The lane of partition {{partition}} is stopped by its dead letters.",
        color="red",
    ),
)
