"""The dashboard *Pipeline*: the health of the service."""

from typing import Final

from deploy.generate.panels import Dashboard, Panel, Query, Section, quantiles

FRESH_S: Final = 10.0
"""The objective's age: a bucket bound of `conversation_record_age_seconds`."""


def _share(part: str, whole: str) -> str:
    """The query of a share, which is 0 without a whole instead of missing."""
    return f"sum({part}) / (sum({whole}) > 0) or 0 * sum({whole})"


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
            queries=(
                Query(
                    _share(
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
            "leader answers. Dashed: the threshold of the alert.",
            unit="s",
            alarm=300,
            queries=(Query("max by (partition) (conversation_lag_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Lag in records, by partition",
            description="Records between the lane's position and the end of the log. If one partition is far above the "
            "others, it has a hot key or its lane fails.",
            unit="short",
            queries=(Query("max by (partition) (conversation_lag_records{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Record age when processed",
            description="From a record's timestamp to its processing, the delay of the sources included.",
            unit="s",
            queries=quantiles("conversation_record_age_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Standstill, by partition",
            description="Time since a partition last moved, if it stands still while records wait or its leader does "
            "not answer. The log line lane.stands_still has the cause.",
            unit="s",
            width=12,
            alarm=1,
            queries=(Query("max by (partition) (conversation_standstill_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Records behind open transactions, by partition",
            description="Records of the input that wait for an open transaction of a producer to end, and the age of "
            "the newest record in that transaction.",
            unit="short",
            width=12,
            queries=(
                Query("max by (partition) (conversation_undecided_records{$scope})", "{{partition}}"),
                Query("max by (partition) (conversation_undecided_seconds{$scope})", "{{partition}} (s)"),
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
            description="Bytes of record values per second, by worker.",
            unit="Bps",
            queries=(
                Query(
                    "sum by (instance) (rate(conversation_record_bytes_total{$scope}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
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

_WORK: Final = Section(
    "Processing",
    (
        Panel(
            title="Commit latency",
            description="Duration of successful commits: effects and offset in one transaction.",
            unit="s",
            queries=quantiles("conversation_commit_duration_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Commits and failures",
            description="Commits per second by result, failed openings of lanes, lanes that started at the first "
            "record because retention was faster than the worker, and transactions that were repaired.",
            unit="ops",
            queries=(
                Query(
                    "sum by (result) (rate(conversation_commits_total{$scope}[$__rate_interval]))", "commit {{result}}"
                ),
                Query("sum(rate(conversation_opening_failures_total{$scope}[$__rate_interval]))", "opening failure"),
                Query("sum(rate(conversation_offset_resets_total{$scope}[$__rate_interval]))", "offset reset"),
                Query(
                    "sum(rate(conversation_transactions_repaired_total{$scope}[$__rate_interval]))",
                    "transaction repaired",
                ),
            ),
        ),
        Panel(
            title="Lane time by activity",
            description="The time of all lanes by activity. `fetch_wait` is idle time: when it is near 0, more workers "
            "or partitions are needed.",
            unit="percentunit",
            kind="stacked",
            queries=(
                Query(
                    "sum by (activity) (rate(conversation_loop_seconds_total{$scope}[$__rate_interval])) "
                    "/ ignoring(activity) group_left clamp_min(sum(conversation_assigned_partitions{$scope}), 1)",
                    "{{activity}}",
                ),
            ),
        ),
        Panel(
            title="Event loop lateness, p99 by worker",
            description="Delay of timers in the event loop. High values mean that the loop is blocked or starved of "
            "CPU; heartbeats and probes fail next.",
            width=6,
            unit="s",
            warn=0.25,
            queries=quantiles("conversation_loop_lag_seconds_bucket{$scope}", "instance", p99=0.99),
        ),
        Panel(
            title="Refused by the ports",
            description="Connections and requests that the admin or query port refused or ended, by reason. Some are "
            "normal: a browser without a session, a client that has gone.",
            width=6,
            unit="reqps",
            warn=1,
            queries=(
                Query(
                    "sum by (port, reason) (rate(conversation_http_refusals_total{$scope}[$__rate_interval])) > 0",
                    "{{port}} {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Since the last commit, by partition",
            description="Time since the last commit of a lane. It also grows on a quiet partition: compare the lag.",
            width=6,
            unit="s",
            queries=(
                Query(
                    "time() - max by (partition) (conversation_last_commit_timestamp_seconds{$scope})",
                    "{{partition}}",
                ),
            ),
        ),
        Panel(
            title="Since the last poll, by worker",
            description="Time since any lane of the worker waited for records. It does not grow in a healthy worker.",
            width=6,
            unit="s",
            warn=150,
            queries=(
                Query(
                    "time() - max by (instance) (conversation_last_poll_timestamp_seconds{$scope} > 0)",
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

_ENGINE: Final = Section(
    "Engine",
    (
        Panel(
            title="Records that the native engine declined",
            description="Share of the records that the native engine left to the rules in Python, by reason. The "
            "results are the same and take several times the CPU. Dashed: the threshold of the alert on their sum.",
            unit="percentunit",
            kind="stacked",
            width=12,
            warn=0.1,
            queries=(
                Query(
                    "sum by (reason) (rate(conversation_engine_declined_total{$scope}[$__rate_interval])) "
                    "/ ignoring(reason) group_left sum(rate(conversation_records_total{$scope}[$__rate_interval]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            title="CPU per record, by worker",
            description="CPU time of a worker divided by the records that it consumed.",
            unit="s",
            width=6,
            queries=(
                Query(
                    "sum by (instance) (rate(process_cpu_seconds_total{$scope}[$__rate_interval])) "
                    "/ sum by (instance) (rate(conversation_records_total{$scope}[$__rate_interval]) > 0)",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Workers by engine",
            description="Workers by the engine that they run. The Python engine runs where no native engine is built.",
            unit="short",
            width=6,
            queries=(Query("count by (engine) (conversation_build_info{$scope})", "{{engine}}"),),
        ),
        Panel(
            title="Records in frames of a relay, by kind",
            description="Records per second that were used although their relay frames values, or spells keys, in a "
            "way of its own. They take the way of declined records.",
            unit="cps",
            width=24,
            queries=(
                Query(
                    "sum by (framing) (rate(conversation_framings_total{$scope}[$__rate_interval])) > 0", "{{framing}}"
                ),
            ),
        ),
    ),
)

_GROUP: Final = Section(
    "Consumer group",
    (
        Panel(
            title="Partitions by worker",
            description="Partitions assigned to a worker, and how many the input topic has (topic).",
            unit="short",
            width=6,
            queries=(
                Query("sum by (instance) (conversation_assigned_partitions{$scope})", "{{instance}}"),
                Query("max(conversation_input_partitions{$scope})", "topic"),
            ),
        ),
        Panel(
            title="Offline partitions, by topic",
            description="Partitions without a leader: all replicas are down or too far behind. They can be neither "
            "read nor written.",
            unit="short",
            width=6,
            alarm=1,
            queries=(Query("max by (topic) (conversation_offline_partitions{$scope})", "{{topic}}"),),
        ),
        Panel(
            title="Rebalances",
            description="Assignments and revocations per interval, summed over workers. A rebalance stops all lanes "
            "for a moment.",
            unit="short",
            width=6,
            queries=(
                Query(
                    "sum by (kind) (increase(conversation_rebalances_total{$scope}[$__rate_interval]))",
                    "{{kind}}",
                ),
            ),
        ),
        Panel(
            title="Records left to restore",
            description="Records of the state topic that opening lanes still have to read. At 0 the lane begins to "
            "consume.",
            unit="short",
            width=6,
            queries=(Query("max by (partition) (conversation_restore_remaining_records{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Duration of the last opening, by partition",
            description="Time that a lane took to open: fencing, committed offset, restore.",
            unit="s",
            queries=(Query("max by (partition) (conversation_restore_duration_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Conversations restored, by partition",
            description="Conversations that the lane had when it opened.",
            unit="short",
            queries=(Query("max by (partition) (conversation_restored_conversations{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Versions, and workers connected",
            description="Workers by version of the service: a rollout is over when there is only one version. And how "
            "many workers are connected to Kafka: an idle worker without connection shows nowhere else.",
            unit="short",
            queries=(
                Query("count by (version) (conversation_build_info{$scope})", "{{version}}"),
                Query("sum(conversation_connected{$scope})", "connected"),
            ),
        ),
    ),
)

_CLOCKS: Final = Section(
    "Clocks",
    (
        Panel(
            title="Event times behind their snapshot",
            description="How far the newest event time in a snapshot is behind the snapshot: the delay from the event "
            "to its notification.",
            unit="s",
            queries=quantiles(
                'conversation_event_skew_seconds_bucket{$scope, direction="behind"}', p50=0.5, p95=0.95, p99=0.99
            ),
        ),
        Panel(
            title="Event times ahead of their snapshot",
            description="Share of snapshots whose newest event time is ahead of the snapshot. Since no event is known "
            "before it happens, two clocks disagree.",
            unit="percentunit",
            queries=(
                Query(
                    _share(
                        'rate(conversation_event_skew_seconds_count{$scope, direction="ahead"}[$__rate_interval])',
                        "rate(conversation_event_skew_seconds_count{$scope}[$__rate_interval])",
                    ),
                    "ahead",
                ),
            ),
        ),
        Panel(
            title="Implausible times",
            description="Records per second with a timestamp more than a second ahead of the worker's clock, and event "
            "times per second that were ignored because they are too far from their snapshot.",
            unit="cps",
            queries=(
                Query(
                    "sum(rate(conversation_future_records_total{$scope}[$__rate_interval]))", "record from the future"
                ),
                Query(
                    'sum(rate(conversation_data_anomalies_total{$scope, kind="implausible_time"}[$__rate_interval]))',
                    "implausible time",
                ),
            ),
        ),
    ),
)

_RESOURCES: Final = Section(
    "Resources",
    (
        Panel(
            title="CPU by worker",
            description="Cores used. A worker uses one core at most, so at 1 it is at its limit.",
            unit="short",
            width=5,
            warn=0.9,
            queries=(
                Query("sum by (instance) (rate(process_cpu_seconds_total{$scope}[$__rate_interval]))", "{{instance}}"),
            ),
        ),
        Panel(
            title="Memory by worker",
            description="Resident memory.",
            unit="bytes",
            width=5,
            queries=(Query("sum by (instance) (process_resident_memory_bytes{$scope})", "{{instance}}"),),
        ),
        Panel(
            title="State in memory, by partition",
            description="Bytes of conversation state. It follows the number of conversations and their retention.",
            unit="bytes",
            width=5,
            kind="stacked",
            queries=(Query("max by (partition) (conversation_state_bytes{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Memory of states by worker",
            description="Share of what the states may take (CC_STATE_TOTAL_BYTES_MAX, or by default a share of the "
            "container's memory limit). At 1 the lanes of the worker stop.",
            unit="percentunit",
            width=5,
            warn=0.9,
            alarm=1,
            none="no limit",
            queries=(
                Query(
                    "max by (instance) (conversation_state_memory_bytes{$scope} / "
                    "(conversation_state_memory_max_bytes{$scope} > 0))",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Open files by worker",
            description="Share of the file descriptors that the process may open.",
            unit="percentunit",
            width=4,
            warn=0.8,
            queries=(
                Query(
                    "sum by (instance) (process_open_fds{$scope}) / sum by (instance) (process_max_fds{$scope})",
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

PIPELINE: Final = Dashboard(
    uid="conversation-consumer-pipeline",
    title="Pipeline",
    description="The health of the service: lag, throughput, dead letters, commits, consumer group and resources.",
    sections=(_NOW, _LAG, _RECORDS, _WORK, _ENGINE, _GROUP, _CLOCKS, _RESOURCES),
)
