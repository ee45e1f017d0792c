"""What a run under faults came to, as one table."""

from collections import Counter
from statistics import median

from msgspec import Struct, field

_MB = 1e6
_WIDTH = 50
_KIND_WORDS = 2
_SETTLED_S = 30.0
"""Age of a worker from which on its memory and descriptors have to be flat."""
_DESCRIPTORS_SLACK = 16
_RESIDENT_SLACK_BYTES = 64_000_000
_RESIDENT_PER_STATE_BYTE = 6
"""What a byte of published state may cost in memory, with its key, its place in the census and its turn of eviction."""


class Sample(Struct, frozen=True):
    """What a worker used at an age."""

    age_s: float
    resident_bytes: int
    descriptors: int


class Report(Struct):
    """What a run came to."""

    seed: int
    minutes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    """Of each worker by its number."""
    records: int = 0
    dispositions: Counter[str] = field(default_factory=Counter)
    conversations: int = 0
    state_bytes: int = 0
    operations: int = 0
    lost_markers: int = 0
    """Markers of transactions that the brokers skipped for good."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Transactions that the workers ended for the brokers, by verdict."""
    mismatches: list[str] = field(default_factory=list)

    @property
    def eldest(self) -> list[Sample]:
        """The samples of the worker that lived longest."""
        return max(self.samples.values(), key=lambda some: some[-1].age_s, default=[])

    def growth(self) -> list[str]:
        """What grew in the eldest worker that should have been flat, a sentence each."""
        settled = [each for each in self.eldest if each.age_s >= _SETTLED_S]
        third = len(settled) // 3
        if not third:
            return []
        early, late = settled[:third], settled[-third:]
        descriptors = median(e.descriptors for e in late) - max(e.descriptors for e in early)
        resident = median(e.resident_bytes for e in late) - median(e.resident_bytes for e in early)
        allowed = _RESIDENT_SLACK_BYTES + _RESIDENT_PER_STATE_BYTE * self.state_bytes
        found = []
        if descriptors > _DESCRIPTORS_SLACK:
            found.append(f"descriptors grew by {descriptors:.0f} beyond what they had been")
        if resident > allowed:
            found.append(f"memory grew by {resident / _MB:.0f} MB, {allowed / _MB:.0f} MB are accounted for by state")
        return found

    def __str__(self) -> str:
        every = [sample for some in self.samples.values() for sample in some]
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
            ("memory of all workers, max", f"{max((e.resident_bytes for e in every), default=0) / _MB:.0f} MB"),
            ("descriptors of all workers, max", max((e.descriptors for e in every), default=0)),
            *self._eldest_rows(),
            ("markers lost by the brokers", self.lost_markers),
            ("transactions repaired", self.repaired.total()),
            *((f"  {verdict}", count) for verdict, count in sorted(self.repaired.items())),
            ("mismatches", len(self.mismatches)),
            *((f"  {kind} ...", count) for kind, count in sorted(self._kinds().items())),
        ]
        return "\n".join(f"{name:{_WIDTH}} {told}" for name, told in rows)

    def _kinds(self) -> Counter[str]:
        """How many mismatches begin with the same words."""
        return Counter(" ".join(each.split()[:_KIND_WORDS]) for each in self.mismatches)

    def _eldest_rows(self) -> list[tuple[str, object]]:
        if not self.eldest:
            return []
        first, last = self.eldest[0], self.eldest[-1]
        resident_max = max(each.resident_bytes for each in self.eldest)
        memory = [f"{bytes_ / _MB:.0f}" for bytes_ in (first.resident_bytes, last.resident_bytes, resident_max)]
        descriptors = [first.descriptors, last.descriptors, max(each.descriptors for each in self.eldest)]
        return [
            ("eldest worker, age", f"{last.age_s:.0f} s"),
            ("  memory, first, last and max", f"{', '.join(memory)} MB"),
            ("  descriptors, first, last and max", ", ".join(map(str, descriptors))),
        ]


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "not measured"
    return f"{median(seconds):.1f} s, {max(seconds):.1f} s, of {len(seconds)}"
