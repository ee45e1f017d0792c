"""Drive two engines side by side through one scenario, and compare all that a lane sees of them after every step.

1. A scenario is a value: options, and the steps with their records. The same scenario runs again the same way.
2. All is compared in order, with one exception: tombstones of one commit, whose order is that of a set in the reference
   engine as well.
3. `CommitStats.declined` is left out: it says how an engine works, not what it found.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.choice import EngineClass
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.commit_stats import CommitStats
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import Engine, Slice
from consumer.engine.python import EngineOptions
from tests.engine.documents import Pairs, parse, rewrite, write
from tests.engine.mutation import Source
from tests.engine.traffic import make_traffic
from tests.engines import as_fetched, list_outputs
from tests.strategies import BASE_MS

SLICE_S: Final = 60.0
"""Longer than any slice: the engines' clock stands still."""
_DAY_S: Final = 86_400


class Process(Struct, frozen=True):
    """Process records from `first_index` on.

    Where the breaker opens, commit or roll back (`commits_at_breaker`), close it and go on.
    """

    records: list[Record]
    first_index: int = 0
    slice_s: float = SLICE_S
    """0 stops after every record."""
    now_ms: int = BASE_MS
    commits_at_breaker: bool = True


class Commit(Struct, frozen=True):
    """Commit what is staged."""


class Rollback(Struct, frozen=True):
    """Drop what is staged; the breaker may learn that it was committed after all."""

    is_committed: bool = False


class Restore(Struct, frozen=True):
    """Go on with fresh engines that get the committed states as published, in an order by the seed."""

    seed: int
    settle_most: int = 100
    is_foreign: bool = False
    """Whether some states look as another version may write them: with more members, in another order, spaced."""


class Skip(Struct, frozen=True):
    """Skip transaction markers."""

    offsets: int


Step = Process | Commit | Rollback | Restore | Skip


class Scenario(Struct, frozen=True):
    """What the engines go through."""

    options: EngineOptions
    steps: list[Step]


class Difference(AssertionError):
    """The engines differ. `what` names the field."""

    def __init__(self, step: int, what: str, left: object, right: object) -> None:
        self.step, self.what = step, what
        super().__init__(f"step {step}: {what} differs\n  left:  {_cut(left)}\n  right: {_cut(right)}")


class Tally(Struct):
    """What a run has seen."""

    scenarios: int = 0
    records: int = 0
    """Records processed, those of rolled back work included."""
    dispositions: Counter[str] = field(default_factory=Counter)
    """By disposition and reason."""
    declined: Counter[str] = field(default_factory=Counter)
    """Records that the right engine declined, by reason."""
    framings: Counter[str] = field(default_factory=Counter)
    """Frames of records that were used, and spellings of their keys."""
    media: Counter[str] = field(default_factory=Counter)
    """Asserted transitions by medium."""
    evicted: int = 0
    opened: int = 0
    """How often the breaker opened."""

    def add(self, left: CommitStats, right: CommitStats) -> None:
        """Add the counts of what was staged."""
        for (disposition, reason), count in left.records.items():
            self.dispositions[f"{disposition} {reason}".strip()] += count
        self.records += left.consumed
        self.evicted += left.evicted
        self.declined.update(right.declined)
        self.framings.update(left.framings)
        for (media, _, _), count in left.asserted.items():
            self.media[media] += count

    def summary(self) -> str:
        """What a run has seen, in a line."""
        accepted = 1 - self.declined.total() / max(1, self.records)
        return f"{self.scenarios} scenarios, {self.records} records, {accepted:.1%} accepted"

    def lines(self) -> Iterator[str]:
        """A report."""
        yield f"{self.summary()}, {self.evicted} evicted, {self.opened} breakers"
        total = max(1, self.records)
        for title in ("dispositions", "declined", "framings", "media"):
            counts: Counter[str] = getattr(self, title)
            yield f"{title}, {counts.total()} ({counts.total() / total:.1%} of the records):"
            yield from (f"  {name:32}{count:10}  {count / total:7.2%}" for name, count in counts.most_common())


class _Pair:
    """Two engines in the same state."""

    def __init__(self, options: EngineOptions, left: EngineClass, right: EngineClass, tally: Tally) -> None:
        self._options, self._classes, self._tally = options, (left, right), tally
        self._step = 0
        self._committed: tuple[int, int | None] = (0, None)
        self._state_end = 0
        self._left, self._right = left(options), right(options)
        self._on_both(lambda engine: engine.start(0, None))

    def perform(self, number: int, step: Step) -> None:
        """Perform a step; raises Difference."""
        self._step = number
        match step:
            case Process():
                self._process(step)
            case Commit():
                self._commit()
            case Rollback():
                self._rollback(is_committed=step.is_committed)
            case Restore():
                self._restore(step)
            case Skip():
                offset = (self._left.next_offset or 0) + step.offsets
                self._on_both(lambda engine: engine.skip_to(offset))
        self._compare(_view_staged)
        if not isinstance(step, Process | Skip):
            self._compare(_view_committed)

    def finish(self) -> None:
        """Count what is still staged, and compare what that may have done to what is committed."""
        self._tally.add(self._left.stats, self._right.stats)
        self._compare(_view_committed)

    def _on_both(self, call: Callable[[Engine], Any]) -> Any:
        """Call both engines, compare what they return or raise, and return it."""
        left, right = (_outcome(call, engine) for engine in (self._left, self._right))
        self._expect("what a call returns", left, right)
        return left

    def _process(self, step: Process) -> None:
        index = step.first_index
        fetched = as_fetched(step.records) if self._step % 2 else step.records  # as a consumer hands them on, or listed
        while index < len(step.records):
            at = index

            def process(engine: Engine, at: int = at) -> tuple[int, str] | str:
                records = fetched if engine is self._right else step.records
                done: Slice = engine.process(records, at, step.slice_s, now_s=7.0, now_ms=step.now_ms)
                return done.next_index, done.stopped_by

            index, stopped_by = self._on_both(process)
            self._compare(_view_staged)
            if stopped_by != "breaker":
                continue
            self._tally.opened += 1
            if step.commits_at_breaker:
                self._commit()
            else:
                self._rollback(is_committed=False)
            self._compare(_view_staged)
            self._on_both(lambda engine: engine.reset_breaker())

    def _commit(self) -> None:
        self._tally.add(self._left.stats, self._right.stats)
        states = self._left.outputs().states
        self._state_end += len(states) + 1
        end = self._state_end if states else None
        self._on_both(lambda engine: engine.commit(end))
        self._committed = (self._left.next_offset or 0, self._left.stream_ms)

    def _rollback(self, *, is_committed: bool) -> None:
        self._tally.add(self._left.stats, self._right.stats)
        self._on_both(lambda engine: engine.rollback())
        self._compare(_view_staged)
        self._on_both(lambda engine: engine.settle_breaker(is_committed=is_committed))
        self._on_both(lambda engine: engine.start(*self._committed))

    def _restore(self, step: Restore) -> None:
        self._tally.add(self._left.stats, self._right.stats)
        chance = random.Random(step.seed)
        states = sorted(self._left.states.items())
        if step.is_foreign:
            states = [(name, rewrite(chance, state) if chance.random() < 0.5 else state) for name, state in states]
        entries: list[tuple[bytes, bytes | None]] = [(name.encode(), state) for name, state in states]
        chance.shuffle(entries)
        older = [(key, chance.choice((None, state))) for key, state in chance.sample(entries, len(entries) // 3)]
        gone = [(b"gone-%d" % number, None) for number in range(3)]
        log_offset = self._left.states.log_offset
        fresh = tuple(make(self._options) for make in self._classes)
        self._left, self._right = fresh

        def restore(engine: Engine) -> int:
            engine.states.restore([*older, *gone])
            engine.states.restore(entries)
            rounds = 1
            while engine.states.settle(step.settle_most):
                rounds += 1
            engine.states.log_offset = engine.states.state_offset = log_offset
            engine.start(*self._committed)
            return rounds

        self._on_both(restore)

    def _compare(self, view: Callable[[Engine], dict[str, object]]) -> None:
        left, right = view(self._left), view(self._right)
        if left != right:
            for what, value in left.items():
                self._expect(what, value, right[what])

    def _expect(self, what: str, left: object, right: object) -> None:
        if left != right:
            raise Difference(self._step, what, left, right)


def replay(scenario: Scenario, left: EngineClass, right: EngineClass, tally: Tally | None = None) -> None:
    """Run a scenario on both engines. Raises Difference at the first step after which they differ."""
    tally = Tally() if tally is None else tally
    pair = _Pair(scenario.options, left, right, tally)
    for number, step in enumerate(scenario.steps):
        pair.perform(number, step)
    pair.finish()
    tally.scenarios += 1


def _view_staged(engine: Engine) -> dict[str, object]:
    """All that is compared after every step."""
    outputs, states, stats = list_outputs(engine), engine.states, engine.stats
    view: dict[str, object] = {
        "next_offset": engine.next_offset,
        "stream_ms": engine.stream_ms,
        "staged": engine.staged,
        "open_reason": engine.open_reason,
        "outputs.dead_letters": outputs.dead_letters,
        "outputs.transitions": outputs.transitions,
        "outputs.states": [output for output in outputs.states if output.value is not None],
        "tombstones": sorted(output.key or b"" for output in outputs.states if output.value is None),
        "count_staged": engine.count_staged(),
        "len(states)": len(states),
        "committed_bytes": states.committed_bytes,
        "log_offset": (states.log_offset, states.state_offset),
    }
    for name in CommitStats.__struct_fields__:
        if name != "declined":
            counted = getattr(stats, name)
            view[f"stats.{name}"] = dict(counted) if isinstance(counted, Counter) else counted
    return view


def _view_committed(engine: Engine) -> dict[str, object]:
    """All that is compared after steps that may change what is committed."""
    states, index = engine.states, engine.states.live_index
    return {
        "committed states": dict(states.items()),
        "states.get": [states.get(name) for name in ("c0", "c1", "unknown")],
        "live_index.states": dict(+index.states),
        "live_index.oldest_live": index.oldest_live(),
        "live_index.live": {
            media: {name: list(since) for name, since in index.live(media).items()} for media in index.live_media()
        },
    }


def _outcome(call: Callable[[Engine], Any], engine: Engine) -> Any:
    """What a call returns; an error of an engine is a result as well, by its type."""
    try:
        return call(engine)
    except Exception as error:  # noqa: BLE001 - the engines have to agree on errors too
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


def _cut(value: object, most: int = 2_000) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def make_scenario(seed: int, records: int = 400) -> Scenario:
    """A scenario of so many records, all drawn from the seed. Several mutate the same ordinary traffic, one by one."""
    chance = random.Random(seed)
    ordinary = make_traffic(seed // _SCENARIOS_OF_TRAFFIC, _TRAFFIC_RECORDS)
    options = make_options(chance, is_small=ordinary.is_small)
    source = Source(chance, ordinary.records, chance.choice((0.0, 0.5, 1.0, 1.0)))
    shuffled, doubled = chance.random() < 0.5, chance.choice((0.0, 0.3, 1.0))
    arriving: list[Record] = []
    while len(arriving) < records:
        drawn = source.draw(chance.choice((5, 50, 200)))
        drawn = [record for record in drawn for _ in range(1 + (chance.random() < doubled))]
        if shuffled:
            chance.shuffle(drawn)
        arriving += drawn
    return Scenario(options, list(_plan(chance, arriving[:records])))


_SCENARIOS_OF_TRAFFIC: Final = 16
_TRAFFIC_RECORDS: Final = 600


def _plan(chance: random.Random, arriving: Sequence[Record]) -> Iterator[Step]:
    """Slices of random size with commits, failed commits and restores between them."""
    offset = at = 0
    while at < len(arriving):
        count = chance.choice((1, 5, 20, 60))
        taken = arriving[at : at + count]
        numbered = [replace(record, offset=offset + number) for number, record in enumerate(taken)]
        lead = chance.choice((0, 0, 2)) if at else 0
        now_ms = max(0, taken[-1].timestamp_ms) + chance.choice((-5_000, 0, 100, 60_000))
        yield Process(
            [*arriving[at - lead : at], *numbered] if lead <= at else numbered,
            lead if lead <= at else 0,
            SLICE_S if chance.random() < 0.85 else 0.0,
            now_ms,
            chance.random() < 0.7,
        )
        draw = chance.random()
        if draw < 0.5:
            yield Commit()
        elif draw < 0.62:
            yield Rollback(chance.random() < 0.3)
            if chance.random() < 0.7:  # the lane reads them again
                continue
        elif draw < 0.7:
            yield Commit()
            yield Restore(chance.randrange(2**32), chance.choice((1, 3, 100)), chance.random() < 0.2)
        elif draw < 0.75:
            gap = chance.choice((1, 2, 10))
            yield Skip(gap)
            offset += gap
        at += len(taken)
        offset += len(taken)


def make_options(chance: random.Random, *, is_small: bool) -> EngineOptions:
    """Options with limits that are reached, in some scenarios."""
    rules = Rules(
        future_skew_max_s=chance.choice((0, 300, 300, 300)),
        park_cycles_max=chance.choice((2, 3, 32)),
        digest_key=chance.choice((b"", b"k", b"k" * 64)),
    )
    if chance.random() < 0.25:
        ended_s = chance.choice((0, 60, 600, 3_600, 3 * _DAY_S))
        rules = replace(rules, retention_ended_s=ended_s, retention_idle_s=ended_s * chance.choice((1, 10)))
    if chance.random() < 0.1:
        rules = replace(
            rules,
            record_bytes_max=chance.choice((400, 1_000, 4_000) if is_small else (3_000, 8_000)),
            communications_max=chance.choice((1, 3, 8)),
            state_bytes_max=chance.choice((1_500, 6_000, 20_000)),
        )
    breaker = BreakerLimits(
        ratio_max=chance.choice((0.2, 0.5, 1.0)),
        window_records=chance.choice((10, 50, 10_000)),
        consecutive_max=chance.choice((5, 100, 100_000)),
    )
    form = DeadLetterFormat(chance.random() < 0.8, chance.choice((10, 1_000, 8_388_608)), "1.2.3")
    return EngineOptions(rules, breaker, form)


def shrink(
    scenario: Scenario, left: EngineClass, right: EngineClass, seconds: float = 60.0
) -> tuple[Scenario, Difference]:
    """The smallest scenario found within the time that still differs, and its difference. It has to differ."""
    until_s = time.monotonic() + seconds

    def differs(steps: Sequence[Step]) -> Difference | None:
        try:
            replay(Scenario(scenario.options, list(steps)), left, right)
        except Difference as difference:
            return difference
        return None

    found = differs(scenario.steps)
    assert found is not None, "the scenario does not differ when it runs again"
    steps: list[Step] = list(scenario.steps[: found.step + 1])
    changed = True
    while changed and time.monotonic() < until_s:
        changed = False
        for candidate in _smaller(steps):
            if time.monotonic() > until_s:
                break
            difference = differs(candidate)
            if difference is not None:
                steps, found, changed = candidate[: difference.step + 1], difference, True
                break
    return Scenario(scenario.options, steps), found


def _smaller(steps: list[Step]) -> Iterator[list[Step]]:
    """Scenarios with less, the smallest first: without some steps, some records, or some values in a record."""
    count = len(steps)
    size = count // 2
    while size:
        for at in range(0, count, size):
            if size < count:
                yield steps[:at] + steps[at + size :]
        size //= 2
    for at, step in enumerate(steps):
        if isinstance(step, Process):
            yield from ([*steps[:at], smaller, *steps[at + 1 :]] for smaller in _fewer_records(step))
    for at, step in enumerate(steps):
        if isinstance(step, Process) and count <= _SIMPLIFIED_MAX and len(step.records) <= _SIMPLIFIED_MAX:
            yield from ([*steps[:at], smaller, *steps[at + 1 :]] for smaller in _simpler_records(step))


_SIMPLIFIED_MAX: Final = 6


def _fewer_records(step: Process) -> Iterator[Process]:
    if step.first_index:
        yield replace(step, records=step.records[step.first_index :], first_index=0)
        return
    size = (len(step.records) + 1) // 2
    while size and len(step.records) > 1:
        for at in range(0, len(step.records), size):
            left = step.records[:at] + step.records[at + size :]
            if left:
                yield replace(step, records=left)
        size = size // 2 if size > 1 else 0


def _simpler_records(step: Process) -> Iterator[Process]:
    for at, record in enumerate(step.records):
        for simpler in _simpler(record):
            yield replace(step, records=[*step.records[:at], simpler, *step.records[at + 1 :]])


def _simpler(record: Record) -> Iterator[Record]:
    if record.headers:
        yield replace(record, headers=())
    value = record.value or b""
    try:
        document = parse(value)
    except (ValueError, RecursionError):
        size = len(value) // 2
        while size:
            yield from (replace(record, value=value[:at] + value[at + size :]) for at in range(0, len(value), size))
            size //= 2
        return
    plain = write(document)
    if len(plain) < len(value):
        yield replace(record, value=plain)
    yield from (replace(record, value=write(smaller)) for smaller in _without_one(document))


def _without_one(document: Any) -> Iterator[Any]:
    """The document without one of its values, the large ones first."""
    if not isinstance(document, list):
        return
    kind = type(document)
    for at in range(len(document)):
        yield kind([*document[:at], *document[at + 1 :]])
    for at, element in enumerate(document):
        name, inner = element if kind is Pairs else ("", element)
        for smaller in _without_one(inner):
            yield kind([*document[:at], (name, smaller) if kind is Pairs else smaller, *document[at + 1 :]])


def describe(scenario: Scenario, difference: Difference) -> str:
    """A program that shows the difference again, with the difference as its comment."""
    steps = "".join(f"        {step!r},\n" for step in scenario.steps)
    comment = "".join(f"# {line}\n" for line in str(difference).splitlines())
    return f"""{comment}from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.native import NativeEngine
from consumer.engine.python import EngineOptions, PythonEngine
from tests.engine.differential import Commit, Process, Restore, Rollback, Scenario, Skip, replay

SCENARIO = Scenario(
    {scenario.options!r},
    [
{steps}    ],
)
replay(SCENARIO, PythonEngine, NativeEngine)
"""
