"""Sections of the dashboard *Pipeline*: how the workers do their work, and what it takes."""

from typing import Final

from deploy.generate.panels import TOP, Panel, Query, Section, quantiles, share, top, top_gauge, top_over, top_rate


def _since(metric: str, by: str) -> str:
    """The query of the time since the newest of the timestamps by a label, for the oldest of them."""
    return top(
        f"time() - max by ({by}) ({metric}{{$scope}} > 0)",
        f"0 - max by ({by}) (max_over_time({metric}{{$scope}}[$__range] @ end()))",
    )


def _lateness(window: str) -> str:
    """How late 1 of 100 timers of a worker was within a window."""
    late = f"rate(conversation_loop_lag_seconds_bucket{{$scope}}{window})"
    return f"histogram_quantile(0.99, sum by (le, instance) ({late}))"


def _cpu_per_record(window: str) -> str:
    """The CPU time of a worker for each record that it consumed within a window."""
    cpu = f"rate(process_cpu_seconds_total{{$scope}}{window})"
    records = f"rate(conversation_records_total{{$scope}}{window})"
    return f"(sum by (instance) ({cpu}) / (sum by (instance) ({records}) > 0))"


WORK: Final = Section(
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
            alerts=("ConversationCommitFailing", "ConversationOffsetReset"),
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
            "CPU; heartbeats and probes fail next."
            f" The {TOP} highest of the selected time.",
            width=6,
            unit="s",
            warn=0.25,
            alerts=("ConversationEventLoopStalled",),
            queries=(Query(top_over(_lateness), "{{instance}}"),),
        ),
        Panel(
            title="Refused by the ports",
            description="Connections and requests that the admin or query port refused or ended, by reason. Some are "
            "normal: a browser without a session, a client that has gone.",
            width=6,
            unit="reqps",
            warn=1,
            alerts=("ConversationClientsRefused", "ConversationTokenGuessed"),
            queries=(
                Query(
                    "sum by (port, reason) (rate(conversation_http_refusals_total{$scope}[$__rate_interval])) > 0",
                    "{{port}} {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Since the last commit, by partition",
            description="Time since the last commit of a lane. It also grows on a quiet partition: compare the lag."
            f" The {TOP} highest of the selected time.",
            width=6,
            unit="s",
            alerts=("ConversationLaneStuck",),
            queries=(Query(_since("conversation_last_commit_timestamp_seconds", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Since the last poll, by worker",
            description="Time since any lane of the worker waited for records. It does not grow in a healthy worker."
            f" The {TOP} highest of the selected time.",
            width=6,
            unit="s",
            warn=150,
            alerts=("ConversationPollStalled",),
            queries=(Query(_since("conversation_last_poll_timestamp_seconds", "instance"), "{{instance}}"),),
        ),
    ),
)

ENGINE: Final = Section(
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
            alerts=("ConversationEngineDeclines",),
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
            description="CPU time of a worker divided by the records that it consumed."
            f" The {TOP} highest of the selected time.",
            unit="s",
            width=6,
            queries=(Query(top_over(_cpu_per_record), "{{instance}}"),),
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

GROUP: Final = Section(
    "Consumer group",
    (
        Panel(
            title="Partitions by worker",
            description="The most and the fewest partitions of one worker, how many are assigned, and how many there "
            "are.",
            unit="short",
            width=6,
            queries=(
                Query("max(conversation_assigned_partitions{$scope})", "most of a worker"),
                Query("min(conversation_assigned_partitions{$scope})", "fewest of a worker"),
                Query("sum(conversation_assigned_partitions{$scope})", "assigned"),
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
            alerts=("ConversationPartitionsOffline",),
            queries=(Query("max by (topic) (conversation_offline_partitions{$scope})", "{{topic}}"),),
        ),
        Panel(
            title="Rebalances",
            description="Assignments and revocations per interval, summed over workers. A rebalance stops all lanes "
            "for a moment.",
            unit="short",
            width=6,
            alerts=("ConversationGroupUnsettled", "ConversationRebalanceStorm"),
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
            "consume."
            f" The {TOP} highest of the selected time.",
            unit="short",
            width=6,
            alerts=("ConversationRestoreSlow",),
            queries=(Query(top_gauge("conversation_restore_remaining_records", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Duration of the last opening, by partition",
            description="Time that a lane took to open: fencing, committed offset, restore."
            f" The {TOP} highest of the selected time.",
            unit="s",
            queries=(Query(top_gauge("conversation_restore_duration_seconds", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Conversations restored, by partition",
            description=f"Conversations that the lane had when it opened. The {TOP} highest of the selected time.",
            unit="short",
            queries=(Query(top_gauge("conversation_restored_conversations", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Versions, and workers connected",
            description="Workers by version of the service: a rollout is over when there is only one version. And how "
            "many workers are connected to Kafka: an idle worker without connection shows nowhere else.",
            unit="short",
            alerts=("ConversationWorkerDisconnected",),
            queries=(
                Query("count by (version) (conversation_build_info{$scope})", "{{version}}"),
                Query("sum(conversation_connected{$scope})", "connected"),
            ),
        ),
    ),
)

CLOCKS: Final = Section(
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
            alerts=("ConversationClockSkew",),
            queries=(
                Query(
                    share(
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
            alerts=("ConversationClockSkew",),
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

RESOURCES: Final = Section(
    "Resources",
    (
        Panel(
            title="CPU by worker",
            description="Cores used. A worker uses one core at most, so at 1 it is at its limit."
            f" The {TOP} highest of the selected time.",
            unit="short",
            width=5,
            warn=0.9,
            queries=(Query(top_rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            title="Memory by worker",
            description=f"Resident memory. The {TOP} highest of the selected time.",
            unit="bytes",
            width=5,
            queries=(Query(top_gauge("process_resident_memory_bytes", "instance"), "{{instance}}"),),
        ),
        Panel(
            title="State in memory, by partition",
            description="Bytes of conversation state. It follows the number of conversations and their retention."
            f" The {TOP} highest of the selected time.",
            unit="bytes",
            width=5,
            queries=(Query(top_gauge("conversation_state_bytes", "partition"), "{{partition}}"),),
        ),
        Panel(
            title="Memory of states by worker",
            description="Share of what the states may take (CC_STATE_TOTAL_BYTES_MAX, or by default a share of the "
            "container's memory limit). At 1 the lanes of the worker stop."
            f" The {TOP} highest of the selected time.",
            unit="percentunit",
            width=5,
            warn=0.9,
            alarm=1,
            none="no limit",
            alerts=("ConversationStateMemoryLow",),
            queries=(
                Query(
                    top(
                        "max by (instance) (conversation_state_memory_bytes{$scope} / "
                        "(conversation_state_memory_max_bytes{$scope} > 0))",
                        "max by (instance) (max_over_time(conversation_state_memory_bytes{$scope}[$__range] @ end()))",
                    ),
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Open files by worker",
            description="Share of the file descriptors that the process may open."
            f" The {TOP} highest of the selected time.",
            unit="percentunit",
            width=4,
            warn=0.8,
            queries=(
                Query(
                    top(
                        "sum by (instance) (process_open_fds{$scope}) / sum by (instance) (process_max_fds{$scope})",
                        "max by (instance) (max_over_time(process_open_fds{$scope}[$__range] @ end()))",
                    ),
                    "{{instance}}",
                ),
            ),
        ),
    ),
)
