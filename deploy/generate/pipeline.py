"""The dashboard *Pipeline*: is it healthy."""

from typing import Final

from deploy.generate.panels import Dashboard, Panel, Query, Section, quantiles

FRESH_S: Final = 10.0
"""The objective's age: a bucket bound of `conversation_record_age_seconds`."""


def _share(part: str, whole: str) -> str:
    """A share that is 0, not nothing, where there is no whole."""
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
            description="Partitions of the input topic that no worker was given. More than 0 for longer than a "
            "rebalance takes: nobody reads them.",
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
            description="Of the partition that is furthest behind: age of what was committed last while there is more.",
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
            description="Records consumed per second, whatever became of them.",
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
            description="Commits and openings of lanes that failed in the last 15 minutes. Single ones heal by "
            "themselves: the lane drops what it had and goes on from its committed offset.",
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
    "How far behind",
    (
        Panel(
            title="Lag in seconds, by partition",
            description="How old the newest of what is committed is while there is more to read, or no leader says "
            "whether there is; else 0. Dashed: where the alert wakes somebody.",
            unit="s",
            alarm=300,
            queries=(Query("max by (partition) (conversation_lag_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Lag in records, by partition",
            description="Records between the lane's position and the end of its partition. One partition far above "
            "the others is a hot key or a lane that fails.",
            unit="short",
            queries=(Query("max by (partition) (conversation_lag_records{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Record age when processed",
            description="From a record's timestamp to its processing: what comes late from the sources counts as well.",
            unit="s",
            queries=quantiles("conversation_record_age_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Standstill, by partition",
            description="Time since a partition moved that stands still though records wait or its leader is out of "
            "reach. The log line lane.stands_still says why.",
            unit="s",
            width=12,
            alarm=1,
            queries=(Query("max by (partition) (conversation_standstill_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Records behind open transactions, by partition",
            description="Records of the input that wait for the end of a producer's transaction, and the age of the "
            "newest record of it.",
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
    "What becomes of records",
    (
        Panel(
            title="Records by disposition",
            description="Records consumed per second, by what became of them. The sum is everything consumed.",
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
            description="Records per second that could not be used. `late`, `too_large` and `key_mismatch` are about "
            "rules, `internal_error` is a bug of this service, all others are broken input.",
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
            description="Records per second that are no conversation updates.",
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
            description="How far records that came out of order lay behind the newest of their partition, by the time "
            "of their snapshots.",
            unit="s",
            queries=quantiles("conversation_out_of_order_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
    ),
)

_WORK: Final = Section(
    "How the work goes",
    (
        Panel(
            title="Commit latency",
            description="Duration of successful commits: effects and offset in one transaction.",
            unit="s",
            queries=quantiles("conversation_commit_duration_seconds_bucket{$scope}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Commits and failures",
            description="Commits per second by result, openings of lanes that failed, and lanes that had to begin at "
            "the first record because retention was faster than the worker.",
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
            description="What lanes spent their time on, summed over all lanes. `fetch_wait` is idle time: near 0 of "
            "it, more workers or partitions are needed.",
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
            description="How late the event loop ran a timer. High values mean that it is blocked or starved of CPU; "
            "heartbeats and probes suffer next.",
            unit="s",
            warn=0.25,
            queries=quantiles("conversation_loop_lag_seconds_bucket{$scope}", "instance", p99=0.99),
        ),
        Panel(
            title="Since the last commit, by partition",
            description="Time since each lane committed. It grows on a quiet partition as well: look at the lag.",
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
            description="Time since a lane of the worker last waited for records. It never grows in good health.",
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

_GROUP: Final = Section(
    "Who owns what",
    (
        Panel(
            title="Partitions by worker",
            description="Partitions that the group gave each worker, and how many the input topic has (topic).",
            unit="short",
            width=6,
            queries=(
                Query("sum by (instance) (conversation_assigned_partitions{$scope})", "{{instance}}"),
                Query("max(conversation_input_partitions{$scope})", "topic"),
            ),
        ),
        Panel(
            title="Offline partitions, by topic",
            description="Partitions that have no leader: all their replicas are down or too far behind. An offline "
            "partition is neither read nor written.",
            unit="short",
            width=6,
            alarm=1,
            queries=(Query("max by (topic) (conversation_offline_partitions{$scope})", "{{topic}}"),),
        ),
        Panel(
            title="Rebalances",
            description="Decisions of the consumer group per interval, summed over workers. Each stops all lanes for a "
            "moment.",
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
            description="Records of the state topic that opening lanes have still to read. Consumption of the "
            "partition begins at 0.",
            unit="short",
            width=6,
            queries=(Query("max by (partition) (conversation_restore_remaining_records{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Duration of the last opening, by partition",
            description="How long each lane took from its assignment to its first record: fencing, offset, restore.",
            unit="s",
            queries=(Query("max by (partition) (conversation_restore_duration_seconds{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Conversations restored, by partition",
            description="Conversations known when the lane opened.",
            unit="short",
            queries=(Query("max by (partition) (conversation_restored_conversations{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Versions, and workers connected",
            description="Workers by version of the service: a roll-out is over when there is one. And how many of them "
            "are connected to Kafka: an idle one that is cut off shows it nowhere else.",
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
            description="How far the newest event time of a snapshot lay behind the snapshot's own time: the way from "
            "the event to the notification, and what was not known before.",
            unit="s",
            queries=quantiles(
                'conversation_event_skew_seconds_bucket{$scope, direction="behind"}', p50=0.5, p95=0.95, p99=0.99
            ),
        ),
        Panel(
            title="Event times ahead of their snapshot",
            description="Share of snapshots whose newest event time lies ahead of their own time. No event is known "
            "before it happens: two clocks disagree.",
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
            title="Times that cannot be",
            description="Records per second from more than a second ahead of the worker's clock, and records with an "
            "event time that was passed over because it is too far from its snapshot.",
            unit="cps",
            queries=(
                Query(
                    "sum(rate(conversation_future_records_total{$scope}[$__rate_interval]))", "record from the future"
                ),
                Query(
                    'sum(rate(conversation_oddities_total{$scope, kind="implausible_time"}[$__rate_interval]))',
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
            description="Cores used. One worker uses one core at most: at 1 it is at its limit.",
            unit="short",
            width=6,
            warn=0.9,
            queries=(
                Query("sum by (instance) (rate(process_cpu_seconds_total{$scope}[$__rate_interval]))", "{{instance}}"),
            ),
        ),
        Panel(
            title="Memory by worker",
            description="Resident memory.",
            unit="bytes",
            width=6,
            queries=(Query("sum by (instance) (process_resident_memory_bytes{$scope})", "{{instance}}"),),
        ),
        Panel(
            title="State in memory, by partition",
            description="Bytes of conversation state. It follows the number of conversations and their retention.",
            unit="bytes",
            width=6,
            kind="stacked",
            queries=(Query("max by (partition) (conversation_state_bytes{$scope})", "{{partition}}"),),
        ),
        Panel(
            title="Open files by worker",
            description="Share of the open file descriptors that the process may have.",
            unit="percentunit",
            width=6,
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
    description="Is the pipeline healthy? Lag, throughput, dead letters, commits, the consumer group and resources.",
    sections=(_NOW, _LAG, _RECORDS, _WORK, _GROUP, _CLOCKS, _RESOURCES),
)
