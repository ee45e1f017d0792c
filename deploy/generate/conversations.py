"""The dashboard *Conversations*: the sessions of the contact centre."""

from typing import Final

from consumer.core.lifecycle import BEFORE, LIVE, RANKS
from deploy.generate.marks import MARKS
from deploy.generate.panels import Dashboard, Panel, Query, Section, one_of, quantiles

_LIVE: Final = one_of([state for state, rank in RANKS.items() if rank == LIVE])
_BEFORE: Final = one_of([state for state, rank in RANKS.items() if rank == BEFORE])
_ENDED: Final = one_of([state for state, rank in RANKS.items() if rank not in {BEFORE, LIVE}])
_COMMUNICATIONS: Final = "namespace_job_media_state:conversation_communications:sum"
"""Communications of all workers, each partition counted once."""
_CHOSEN: Final = '$scope, media=~"$media"'
_UNPLANNED: Final = f'{_CHOSEN}, media!="callback"'
"""Without callbacks, which wait for their scheduled time."""
_COBROWSE: Final = '$scope, media="cobrowse"'


def _by_reason(ended: str) -> str:
    """Ended communications, summed by disconnect type; without one the label is `none shown`."""
    by_type = f"sum by (disconnect_type) ({ended}) > 0"
    return f'label_replace({by_type}, "disconnect_type", "none shown", "disconnect_type", "")'


_NOW: Final = Section(
    "Now",
    (
        Panel(
            title="Live",
            description="Communications that are live: connected, parked, or transmitting. One leg of one participant "
            "is one communication.",
            unit="short",
            kind="number",
            width=4,
            height=4,
            none="none",
            queries=(Query(f'sum({_COMMUNICATIONS}{{{_CHOSEN}, state=~"{_LIVE}"}})'),),
        ),
        Panel(
            title="Waiting",
            description="Communications that are not live yet: scheduled, offered, dialing, alerting.",
            unit="short",
            kind="number",
            width=4,
            height=4,
            none="none",
            queries=(Query(f'sum({_COMMUNICATIONS}{{{_CHOSEN}, state=~"{_BEFORE}"}})'),),
        ),
        Panel(
            title="Live co-browse legs",
            description="Live communications in co-browse sessions; a session has two, sharer and viewer.",
            unit="short",
            kind="number",
            width=4,
            height=4,
            none="none",
            queries=(Query(f'sum({_COMMUNICATIONS}{{{_COBROWSE}, state=~"{_LIVE}"}})'),),
        ),
        Panel(
            title="Connect latency, p95",
            description="Within this time 95 of 100 communications went from their first state to their first live "
            "one, by event time. Without callbacks, which are planned, and those that were live when first seen.",
            unit="s",
            kind="number",
            width=4,
            height=4,
            none="none connected",
            queries=quantiles(f"conversation_connect_seconds_bucket{{{_UNPLANNED}}}", p95=0.95),
        ),
        Panel(
            title="Oldest not ended",
            description="Age of the oldest communication that has not ended. Days are normal for e-mails and "
            "messages. Calls and co-browse sessions of that age have ended, and their end was missed.",
            unit="s",
            kind="number",
            width=4,
            height=4,
            none="none",
            queries=(Query(f"time() - min(conversation_oldest_live_timestamp_seconds{{{_CHOSEN}}})"),),
        ),
        Panel(
            title="Conversations known",
            description="Conversations in memory: those under way, and ended ones until their retention is over.",
            unit="short",
            kind="number",
            width=4,
            height=4,
            queries=(Query("sum(max by (namespace, job, partition) (conversation_state_conversations{$scope}))"),),
        ),
    ),
)

_SESSIONS: Final = Section(
    "Sessions",
    (
        Panel(
            title="Live by media",
            description="Live communications by medium. While partitions move between workers, each counts once at "
            "most, and not at all until its new owner has read its state.",
            unit="short",
            kind="stacked",
            queries=(Query(f'sum by (media) ({_COMMUNICATIONS}{{{_CHOSEN}, state=~"{_LIVE}"}}) > 0', "{{media}}"),),
        ),
        Panel(
            title="Not ended, by state",
            description="Communications that have not ended, by state. Many that alert while few connect are customers "
            "who wait.",
            unit="short",
            kind="stacked",
            queries=(Query(f'sum by (state) ({_COMMUNICATIONS}{{{_CHOSEN}, state!~"{_ENDED}"}}) > 0', "{{state}}"),),
        ),
        Panel(
            title="Started by media",
            description="Communications seen for the first time, per second.",
            unit="cps",
            kind="stacked",
            queries=(
                Query(
                    f'sum by (media) (rate(conversation_transitions_total{{{_CHOSEN}, from=""}}[$__rate_interval]))',
                    "{{media}}",
                ),
            ),
        ),
        Panel(
            title="Transitions by state entered",
            description="Asserted transitions per second, by the state entered. They follow the business: at a flat "
            "line at noon look at the sources.",
            unit="ops",
            queries=(
                Query(
                    f"sum by (to) (rate(conversation_transitions_total{{{_CHOSEN}}}[$__rate_interval]))",
                    "{{to}}",
                ),
            ),
        ),
        Panel(
            title="Connect latency",
            description="From a communication's first state to its first live one, by event time: how long customers "
            "and agents waited. Without callbacks, which are planned.",
            unit="s",
            queries=quantiles(f"conversation_connect_seconds_bucket{{{_UNPLANNED}}}", p50=0.5, p95=0.95, p99=0.99),
        ),
        Panel(
            title="Duration, median by media",
            description="From the first live state to the end, by event time, of the communications that ended.",
            unit="s",
            queries=quantiles(f"conversation_duration_seconds_bucket{{{_CHOSEN}}}", "media", p50=0.5),
        ),
        Panel(
            title="Disconnect reasons",
            description="Communications that ended in the selected time, by disconnect type. The platform causes "
            "`error`, `timeout` and `transport.failure`, people cause most others.",
            unit="short",
            decimals=0,
            kind="bars",
            none="none ended",
            queries=(
                Query(
                    f"sort_desc({_by_reason(f'increase(conversation_disconnects_total{{{_CHOSEN}}}[$__range])')})",
                    "{{disconnect_type}}",
                ),
            ),
        ),
        Panel(
            title="Ended by reason",
            description="Communications that ended per second, by disconnect type; the six most frequent.",
            unit="cps",
            queries=(
                Query(
                    f"topk(6, {_by_reason(f'rate(conversation_disconnects_total{{{_CHOSEN}}}[$__rate_interval])')})",
                    "{{disconnect_type}}",
                ),
            ),
        ),
        Panel(
            title="Oldest not ended, by media",
            description="Age of the oldest communication that has not ended. A line that only rises is a communication "
            "whose end was missed.",
            unit="s",
            alerts=("ConversationSessionStuckLive",),
            queries=(
                Query(
                    f"time() - min by (media) (conversation_oldest_live_timestamp_seconds{{{_CHOSEN}}})", "{{media}}"
                ),
            ),
        ),
    ),
)

_TRUTH: Final = Section(
    "Data quality",
    (
        Panel(
            title="Corrections by media",
            description="Transitions per second that were retracted because an older event arrived late. They follow "
            "the disorder of the input. Readers that keep the last operation per id stay correct.",
            unit="ops",
            queries=(
                Query(
                    f"sum by (media) (rate(conversation_corrections_total{{{_CHOSEN}}}[$__rate_interval])) > 0",
                    "{{media}}",
                ),
            ),
        ),
        Panel(
            title="Sources of times",
            description="Share of transitions by the source of their time: the provider's event, the state's own time, "
            "or the snapshot, which is only an upper bound.",
            unit="percentunit",
            kind="stacked",
            ceiling=1,
            queries=(
                Query(
                    f"sum by (time_class) (rate(conversation_time_sources_total{{{_CHOSEN}}}[$__rate_interval])) / "
                    f"ignoring(time_class) group_left sum(rate(conversation_time_sources_total{{{_CHOSEN}}}"
                    "[$__rate_interval]))",
                    "{{time_class}}",
                ),
            ),
        ),
        Panel(
            title="Data anomalies by kind",
            description="Data anomalies per second in records that were still applied: broken clocks, missing ids, "
            "unknown values. New kinds after a release of Genesys Cloud are the first sign of a changed model.",
            unit="cps",
            alerts=("ConversationClockSkew",),
            queries=(
                Query(
                    "sum by (kind) (rate(conversation_data_anomalies_total{$scope}[$__rate_interval])) > 0",
                    "{{kind}}",
                ),
            ),
        ),
    ),
)

_COBROWSE_ROW: Final = Section(
    "Co-browse",
    (
        Panel(
            title="Co-browse legs by state",
            description="Legs of co-browse sessions that have not ended, by state.",
            unit="short",
            kind="stacked",
            width=6,
            queries=(Query(f'sum by (state) ({_COMMUNICATIONS}{{{_COBROWSE}, state!~"{_ENDED}"}}) > 0', "{{state}}"),),
        ),
        Panel(
            title="Co-browse connect latency",
            description="From the invitation to the shared screen, by the provider's clock.",
            unit="s",
            width=6,
            queries=quantiles(f"conversation_connect_seconds_bucket{{{_COBROWSE}}}", p50=0.5, p95=0.95),
        ),
        Panel(
            title="Co-browse duration",
            description="From the shared screen to the end of the session.",
            unit="s",
            width=6,
            queries=quantiles(f"conversation_duration_seconds_bucket{{{_COBROWSE}}}", p50=0.5, p95=0.95),
        ),
        Panel(
            title="Co-browse ends by reason",
            description="Legs of co-browse sessions that ended per second, by disconnect type.",
            unit="cps",
            width=6,
            queries=(
                Query(
                    _by_reason(f"rate(conversation_disconnects_total{{{_COBROWSE}}}[$__rate_interval])"),
                    "{{disconnect_type}}",
                ),
            ),
        ),
    ),
)

CONVERSATIONS: Final = Dashboard(
    uid="conversation-consumer-conversations",
    title="Conversations",
    description="The sessions of the contact centre: live, waiting, durations and ends, by media.",
    sections=(_NOW, _SESSIONS, _TRUTH, _COBROWSE_ROW),
    choices=("media",),
    marks=MARKS,
)
