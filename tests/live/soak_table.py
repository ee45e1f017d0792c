"""The report of a run under faults, as one table."""

from collections import Counter
from statistics import median

from msgspec import Struct, field

_MB = 1e6
_WIDTH = 50
_KIND_WORDS = 2
_SETTLED_S = 30.0
"""Age of a worker from which its memory and descriptors must be flat."""
_DESCRIPTORS_SLACK = 16
_RESIDENT_SLACK_BYTES = 64_000_000
_RESIDENT_PER_STATE_BYTE = 6
"""Bytes of memory that a byte of published state may take, including its key, live index and eviction entry."""


class Sample(Struct, frozen=True):
    """Memory and descriptors of a worker at an age."""

    age_s: float
    resident_bytes: int
    descriptors: int


class Report(Struct):
    """The measurements of a run, and the differences from the model."""

    seed: int
    minutes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    """By the number of the worker."""
    records: int = 0
    dispositions: Counter[str] = field(default_factory=Counter)
    conversations: int = 0
    state_bytes: int = 0
    operations: int = 0
    lost_markers: int = 0
    """Transaction markers that the brokers skipped for good."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Transactions that the workers ended for the brokers, by verdict."""
    mismatches: list[str] = field(default_factory=list)

    @property
    def eldest(self) -> list[Sample]:
        """The samples of the worker that lived longest."""
        return max(self.samples.values(), key=lambda samples: samples[-1].age_s, default=[])

    def growth(self) -> list[str]:
        """A sentence for everything that grew in the eldest worker and should have been flat."""
        settled = [sample for sample in self.eldest if sample.age_s >= _SETTLED_S]
        third = len(settled) // 3
        if not third:
            return []
        early, late = settled[:third], settled[-third:]
        descriptors = median(sample.descriptors for sample in late) - max(sample.descriptors for sample in early)
        resident = median(sample.resident_bytes for sample in late) - median(sample.resident_bytes for sample in early)
        allowed = _RESIDENT_SLACK_BYTES + _RESIDENT_PER_STATE_BYTE * self.state_bytes
        sentences = []
        if descriptors > _DESCRIPTORS_SLACK:
            sentences.append(f"descriptors grew by {descriptors:.0f} beyond what they had been")
        if resident > allowed:
            sentences.append(
                f"memory grew by {resident / _MB:.0f} MB, {allowed / _MB:.0f} MB are accounted for by state"
            )
        return sentences

    def __str__(self) -> str:
        every = [sample for samples in self.samples.values() for sample in samples]
        rows: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("minutes", f"{self.minutes:.1f}"),
            ("records", self.records),
            *((f"  {name}", count) for name, count in sorted(self.dispositions.items())),
            ("conversations", f"{self.conversations} ({self.state_bytes / _MB:.1f} MB of state)"),
            ("operations", self.operations),
            ("faults", self.faults.total()),
            *((f"  {name}", count) for name, count in sorted(self.faults.items())),
            ("exits of workers", ", ".join(f"{code}: {count}" for code, count in sorted(self.exits.items()))),
            ("recovery, median and max", _spread(self.recoveries_s)),
            (
                "memory of all workers, max",
                f"{max((sample.resident_bytes for sample in every), default=0) / _MB:.0f} MB",
            ),
            ("descriptors of all workers, max", max((sample.descriptors for sample in every), default=0)),
            *self._eldest_rows(),
            ("markers lost by the brokers", self.lost_markers),
            ("transactions repaired", self.repaired.total()),
            *((f"  {verdict}", count) for verdict, count in sorted(self.repaired.items())),
            ("mismatches", len(self.mismatches)),
            *((f"  {kind} ...", count) for kind, count in sorted(self._kinds().items())),
        ]
        return "\n".join(f"{name:{_WIDTH}} {value}" for name, value in rows)

    def _kinds(self) -> Counter[str]:
        """How many mismatches begin with the same words."""
        return Counter(" ".join(mismatch.split()[:_KIND_WORDS]) for mismatch in self.mismatches)

    def _eldest_rows(self) -> list[tuple[str, object]]:
        if not self.eldest:
            return []
        first, last = self.eldest[0], self.eldest[-1]
        resident_max = max(sample.resident_bytes for sample in self.eldest)
        memory = [f"{bytes_ / _MB:.0f}" for bytes_ in (first.resident_bytes, last.resident_bytes, resident_max)]
        descriptors = [first.descriptors, last.descriptors, max(sample.descriptors for sample in self.eldest)]
        return [
            ("eldest worker, age", f"{last.age_s:.0f} s"),
            ("  memory, first, last and max", f"{', '.join(memory)} MB"),
            ("  descriptors, first, last and max", ", ".join(map(str, descriptors))),
        ]


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "not measured"
    return f"{median(seconds):.1f} s, {max(seconds):.1f} s, of {len(seconds)}"
