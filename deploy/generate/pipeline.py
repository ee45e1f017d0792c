"""The dashboard *Pipeline*: the health of the service."""

from typing import Final

from deploy.generate.marks import MARKS
from deploy.generate.panels import TOP, Dashboard, Panel, Query, Section, quantiles, share, top_gauge, top_rate
from deploy.generate.pipeline_workers import CLOCKS, ENGINE, GROUP, RESOURCES, WORK

FRESH_S: Final = 10.0
"""The objective's age: a bucket bound of `conversation_record_age_seconds`."""


_NOW: Final = Section(
    "Now",
    (
        Panel(
            title="Workers",
            description="Workers that a scrape reaches.",
            unit="short",
            kind="number",
            width=3,
            height=4,
            none="none",
            alerts=("ConversationConsumerDown", "ConversationWorkerDown"),
            queries=(Query("sum(up{$scope})"),),
        ),
        Panel(
            title="Unowned partitions",
            description="Partitions of the input topic without a worker. If it stays above 0 for longer than a "
            "rebalance, they are not read.",
            unit="short",
            kind="number",
            width=3,
            height=4,
            alarm=1,
            alerts=("ConversationPartitionsUnowned",),
            queries=(
                Query(
                    "clamp_min(max(conversation_input_partitions{$scope}) - "
                    "sum(conversation_assigned_partitions{$scope}), 0)"
                ),
            ),
        ),
        Panel(
            title="Lag",
            description="Of the partition that is furthest behind: upper bound of how long a record has waited.",
            unit="s",
            kind="number",
            width=3,
            height=4,
            warn=30,
            alarm=300,
            alerts=("ConversationLagTimeHigh",),
            queries=(Query("max(conversation_lag_seconds{$scope})"),),
        ),
        Panel(
            title="Throughput",
            description="Records consumed per second, of any disposition.",
            unit="cps",
            kind="number",
            width=3,
            height=4,
            queries=(Query("sum(rate(conversation_records_total{$scope}[$__rate_interval]))"),),
        ),
        Panel(
            title="Fresh",
            description=f"Share of records that were processed at most {FRESH_S:g} s after their timestamp. The "
            "objective is 99 of 100 over 30 days.",
            unit="percentunit",
            kind="number",
            width=3,
            height=4,
            none="no records",
            alerts=("ConversationFreshnessBudgetBurnsFast", "ConversationFreshnessBudgetBurnsSlowly"),
            queries=(
                Query(
                    f'sum(rate(conversation_record_age_seconds_bucket{{$scope, le="{FRESH_S}"}}[$__rate_interval])) / '
                    "sum(rate(conversation_record_age_seconds_count{$scope}[$__rate_interval]))"
                ),
            ),
        ),
        Panel(
            title="Dead letters",
            description="Share of records that could not be used.",
            unit="percentunit",
            kind="number",
            width=3,
            height=4,
            warn=0.01,
            alarm=0.1,
            alerts=("ConversationDeadLetters",),
            queries=(
                Query(
                    share(
                        'rate(conversation_records_total{$scope, disposition="dead_lettered"}[$__rate_interval])',
                        "rate(conversation_records_total{$scope}[$__rate_interval])",
                    )
                ),
            ),
        ),
        Panel(
            title="Breakers open",
            description="Partitions that stand still because nearly everything in them is a dead letter.",
            unit="short",
            kind="number",
            width=3,
            height=4,
            alarm=1,
            alerts=("ConversationBreakerOpen",),
            queries=(Query("sum(conversation_breaker_open{$scope})"),),
        ),
        Panel(
            title="Failures, 15 min",
            description="Failed commits and openings of lanes in the last 15 minutes. A lane recovers by itself: it "
            "drops what it staged and continues from its committed offset.",
            unit="short",
            decimals=0,
            kind="number",
            width=3,
            height=4,
            warn=1,
            alerts=("ConversationCommitFailing",),
            queries=(
                Query(
                    'sum(increase(conversation_commits_total{$scope, result="failure"}[15m])) + '
                    "sum(increase(conversation_opening_failures_total{$scope}[15m]))"
                ),
            ),
        ),
    ),
)

_LAG: Final = Section(
    "Lag",
    (
        Panel(
            title="Lag in seconds, by partition",
            description="Upper bound of how long the oldest uncommitted record has waited. It also grows while no "
            "leader answers. Dashed: the threshold of the alert."
            f" The {TOP} highest of the selected time.",
            unit="s",
            alarm=300,
            alerts=("ConversationLagTimeHigh", "ConversationLagGrowing"),
            queries=(Query(top_gauge("conversation_lag_seconds", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Lag in records, by partition",
            description="Records between the lane's position and the end of the log. If one partition is far above the "
            "others, it has a hot key or its lane fails."
            f" The {TOP} highest of the selected time.",
            unit="short",
            alerts=("ConversationLagGrowing",),
            queries=(Query(top_gauge("conversation_lag_records", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Record age when processed",
            description="From a record's timestamp to its processing, the delay of the sources included.",
            unit="s",
            alerts=("ConversationFreshnessBudgetBurnsFast", "ConversationFreshnessBudgetBurnsSlowly"),
            queries=quantiles("conversation_record_age_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Standstill, by partition",
            description="Time since a partition last moved, if it stands still while records wait or its leader does "
            "not answer. The log line lane.stands_still has the cause."
            f" The {TOP} highest of the selected time.",
            unit="s",
            width=12,
            alarm=1,
            alerts=("ConversationPartitionStandsStill",),
            queries=(Query(top_gauge("conversation_standstill_seconds", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Records behind open transactions, by partition",
            description="Records of the input that wait for an open transaction of a producer to end, and the age of "
            "the newest record in that transaction."
            f" The {TOP} highest of the selected time.",
            unit="short",
            width=12,
            queries=(
                Query(top_gauge("conversation_undecided_records", "partition"), "{{partition}}"),
                Query(top_gauge("conversation_undecided_seconds", "partition"), "{{partition}} (s)"),
            ),
        ),
    ),
)

_RECORDS: Final = Section(
    "Records",
    (
        Panel(
            title="Records by disposition",
            description="Records consumed per second, by disposition. The sum is everything consumed.",
            unit="cps",
            kind="stacked",
            queries=(
                Query(
                    "sum by (disposition) (rate(conversation_records_total{$scope}[$__rate_interval]))",
                    "{{disposition}}",
                ),
            ),
        ),
        Panel(
            title="Bytes consumed",
            description=f"Bytes of record values per second, by worker. The {TOP} highest of the selected time.",
            unit="Bps",
            queries=(Query(top_rate("conversation_record_bytes_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            title="Records by notification topic",
            description="Records consumed per second, by template of their notification topic.",
            unit="cps",
            queries=(
                Query(
                    "sum by (topic) (rate(conversation_topic_records_total{$scope}[$__rate_interval])) > 0", "{{topic}}"
                ),
            ),
        ),
        Panel(
            title="Dead letters by reason",
            description="Records per second that could not be used. `late`, `too_large` and `key_mismatch` break a "
            "rule, `internal_error` is a bug of this service, all others are broken input.",
            unit="cps",
            alerts=("ConversationDeadLetters", "ConversationInternalError"),
            queries=(
                Query(
                    'sum by (reason) (rate(conversation_records_total{$scope, disposition="dead_lettered"}'
                    "[$__rate_interval])) > 0",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Ignored by reason",
            description="Records per second that are not conversation updates.",
            unit="cps",
            queries=(
                Query(
                    'sum by (reason) (rate(conversation_records_total{$scope, disposition="ignored"}'
                    "[$__rate_interval])) > 0",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Disorder of the input",
            description="How far out-of-order records were behind the newest record of their partition, by snapshot "
            "time.",
            unit="s",
            queries=quantiles("conversation_out_of_order_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
    ),
)

PIPELINE: Final = Dashboard(
    uid="conversation-consumer-pipeline",
    title="Pipeline",
    description="The health of the service: lag, throughput, dead letters, commits, consumer group and resources.",
    sections=(_NOW, _LAG, _RECORDS, WORK, ENGINE, GROUP, CLOCKS, RESOURCES),
    marks=MARKS,
)
