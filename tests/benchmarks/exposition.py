"""What a worker's metrics say about a run: what its engine declined, and how late the event loop was."""

from collections import defaultdict

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families


class Observed(Struct, frozen=True):
    """The metrics of a worker since its start."""

    engine: str
    declined: dict[str, float]
    """Records that the native engine declined, as a share of all, by reason; without those that did not occur."""
    loop_lag_p99_ms: float
    """Interpolated within a bucket of the histogram, as PromQL does."""


def read(exposition: str) -> Observed:
    """Read the metrics of a worker that has processed something."""
    records, engine = 0.0, ""
    declined: dict[str, float] = {}
    lags: dict[float, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            match sample.name:
                case "conversation_build_info":
                    engine = sample.labels["engine"]
                case "conversation_records_total":
                    records += sample.value
                case "conversation_engine_declined_total" if sample.value:
                    declined[sample.labels["reason"]] = sample.value
                case "conversation_loop_lag_seconds_bucket":
                    lags[float(sample.labels["le"])] += sample.value
    shares = {reason: count / records for reason, count in declined.items()}
    return Observed(engine, shares, find_quantile(lags, 0.99) * 1_000)


def find_quantile(buckets: dict[float, float], share: float) -> float:
    """A quantile of a histogram, given as cumulative counts by upper bound; the last finite bound if it lies above."""
    wanted = share * max(buckets.values(), default=0.0)
    lower, below = 0.0, 0.0
    for upper, count in sorted(buckets.items()):
        if upper == float("inf"):
            break
        if count >= wanted:
            return lower + (upper - lower) * (wanted - below) / max(1.0, count - below)
        lower, below = upper, count
    return lower
