"""What the benchmarks should come to, as a table beside what they came to."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from tests.benchmarks.options import Line


class Target(Struct, frozen=True):
    """A bound for one field of a result."""

    what: str
    name: str
    field: str
    bound: float
    is_most: bool = False
    """Whether the bound is the most that the field may be; else it is the least."""
    of: str = ""
    """The case, where several results have one name."""

    def make_row(self, lines: Iterable[Line]) -> str | None:
        """The row of a table; None if it was not measured."""
        for line in lines:
            if line["name"] == self.name and line.get("with", "") == self.of and self.field in line:
                value = float(line[self.field])
                is_met = value <= self.bound if self.is_most else value >= self.bound
                bound = f"{'at most' if self.is_most else 'at least'} {self.bound:,g}"
                return f"| {self.what} | {bound} | {value:,g} | {'yes' if is_met else '**no**'} |"
        return None


TARGETS = (
    Target("catching up, of the decode floor", "worker", "of_decode_floor", 0.55),
    Target("with `CC_COMMIT_RECORDS_MAX=500`, of the decode floor", "worker_commits_500", "of_decode_floor", 0.38),
    Target("event loop lag p99 while catching up, ms", "worker", "loop_lag_p99_ms", 20, is_most=True),
    Target("10 times the conversations, to few", "growth", "of_first", 0.95, of="10 times the conversations"),
    Target("64 partitions, to 1", "growth", "of_first", 0.9, of="64 partitions"),
    Target("conversations restored a second", "restore", "conversations_per_s", 200_000),
    Target(
        "bytes of memory beyond a conversation's own", "restore", "overhead_bytes_per_conversation", 250, is_most=True
    ),
    Target("p99 latency at quarter load, of the commit interval", "latency", "p99_of_interval", 2.5, is_most=True),
)


def make_table(lines: list[Line]) -> Iterator[str]:
    """A table of the targets that were measured; nothing if none was."""
    rows = [row for target in TARGETS if (row := target.make_row(lines)) is not None]
    if rows:
        yield from ("| what | target | measured | met |", "| --- | --- | --- | --- |", *rows)
