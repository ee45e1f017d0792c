"""`dead-letters`: what could not be used, why, and back into the input with it once the cause is mended."""

import base64
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any

import click
import msgspec
from msgspec import Struct, field

from consumer.adapters import logs
from consumer.adapters.kafka.dead_letters import RATE_MAX, Counts, Letters, Order, Sight
from consumer.cli.columns import columns, printable
from consumer.cli.exits import exit_on_world_error, settings_or_exit
from consumer.cli.long_work import run_until_terminated
from consumer.cli.options import Time
from consumer.cli.progress import progress, warn
from consumer.core import times
from consumer.core.step import DEAD_LETTER_REASONS
from consumer.runtime.redrive import FATES, Selection
from consumer.runtime.settings import Settings

_PARTITIONS_SHOWN = 8
_option = partial(click.option, show_default=True)


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at the records that could not be used, and put them back into the input."""


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which dead letters are meant."""
    for option in (
        click.option("--until", type=Time(), help="Those before this time, such as 2026-01-31T10:00:00Z."),
        click.option("--since", type=Time(), help="Those that became dead letters at this time or later."),
        click.option("--partition", type=click.IntRange(0), multiple=True, help="Input partition; may be repeated."),
        click.option("--key", multiple=True, help="Key of the original record; may be repeated."),
        click.option("--reason", type=click.Choice(DEAD_LETTER_REASONS), multiple=True, help="May be repeated."),
    ):
        command = option(command)
    return command


def _selection(chosen: dict[str, Any]) -> Selection:
    return Selection(
        reasons=frozenset(chosen["reason"]),
        keys=frozenset(key.encode("utf-8", "surrogateescape") for key in chosen["key"]),
        partitions=frozenset(chosen["partition"]),
        since_ms=chosen["since"],
        until_ms=chosen["until"],
    )


@dead_letters.command("list")
@_selecting
@click.option("--json", "as_json", is_flag=True, help="A JSON object per reason and line.")
def list_(*, as_json: bool, **chosen: Any) -> None:
    """Count the dead letters by reason: when, where from, and how many went back already.

    \b
    Examples:
      conversation-consumer dead-letters list
      conversation-consumer dead-letters list --since 2026-01-31T09:00:00Z --json

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _begin()
    groups: dict[str, _Group] = {}

    def note(sight: Sight) -> None:
        groups.setdefault(sight.letter.reason, _Group(sight.letter.reason)).add(sight)

    _reading(settings, _selection(chosen), note)
    found = sorted(groups.values(), key=lambda group: -group.letters)
    if as_json:
        for group in found:
            click.echo(msgspec.json.encode(group.document()))
        return
    if not found:
        click.echo("no dead letters")
        return
    headings = ("reason", "letters", "redriven", "without payload", "first", "last", "input partitions")
    for line in columns([headings, *(group.row() for group in found)]):
        click.echo(printable(line))


@dead_letters.command()
@_selecting
@_option("--limit", type=click.IntRange(1, 10_000), default=10, help="The newest of each reason.")
@click.option("--raw", is_flag=True, help="Show keys and values too. They are customers' personal data.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object per dead letter and line.")
def show(*, limit: int, raw: bool, as_json: bool, **chosen: Any) -> None:
    """Show dead letters: why, where they were broken, where they come from and how large they are.

    \b
    Examples:
      conversation-consumer dead-letters show --reason wrong_type --limit 3
      conversation-consumer dead-letters show --key ID --raw

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _begin()
    newest: dict[tuple[int, str], deque[dict[str, Any]]] = {}

    def note(sight: Sight) -> None:
        place = (sight.letter.partition, sight.letter.reason)
        newest.setdefault(place, deque(maxlen=limit)).append(_document(sight, raw=raw))

    _reading(settings, _selection(chosen), note)
    documents = newest_of_each_reason((each for some in newest.values() for each in some), limit)
    for document in documents:
        if as_json:
            click.echo(msgspec.json.encode(document))
        else:
            for name, value in document.items():
                click.echo(printable(f"{name:14}{_shown(value)}"))
            click.echo()
    if not documents and not as_json:
        click.echo("no dead letters")


@dead_letters.command()
@_selecting
@click.option("--yes", "--execute", "execute", is_flag=True, help="Do it. Without, it only tells what it would do.")
@_option("--rate", type=click.FloatRange(0.1, RATE_MAX), default=500.0, help="Records per second at most.")
@click.option("--limit", type=click.IntRange(1), help="Records in all at most.")
@_option("--attempts-max", type=click.IntRange(1, 1_000), default=3, help="Leave those that came back so often.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object per reason and fate, and line.")
def redrive(*, execute: bool, rate: float, limit: int | None, attempts_max: int, as_json: bool, **chosen: Any) -> None:
    """Put dead letters back into the input: the same key, bytes, timestamp and partition. Never the same one twice.

    Mend the cause first, or they come back. Without --yes nothing is written. It may be interrupted and started
    again; what a filter leaves out can be redriven another time.

    \b
    Examples:
      conversation-consumer dead-letters redrive --reason too_large
      conversation-consumer dead-letters redrive --reason too_large --rate 200 --yes

    Exit codes: 0 done; 2 wrong options; 69 Kafka does not answer; 78 settings, permissions or topics are wrong; 130
    interrupted; 143 ended by SIGTERM or SIGHUP.
    """  # noqa: D301 - click's own mark for lines to be left as they are
    settings = _begin()
    order = Order(
        selection=_selection(chosen), attempts_max=attempts_max, rate=rate, letters_max=limit, execute=execute
    )
    with exit_on_world_error():
        counts = run_until_terminated(_redrive(settings, order))
    if as_json:
        for (reason, found), count in sorted(counts.items()):
            document = {"reason": reason, "fate": found, "count": count, "executed": execute}
            click.echo(msgspec.json.encode(document))
    else:
        for line in told(counts, executed=execute):
            click.echo(printable(line))
    for note in _notes(settings, counts, executed=execute):
        click.echo(note, err=True)


def told(counts: Counts, *, executed: bool) -> list[str]:
    """A line per reason and fate, then the sum."""
    total = sum(count for (_, found), count in counts.items() if found == "redrive")
    rows = [
        (reason, str(count), "went back into the input" if executed and found == "redrive" else FATES[found])
        for (reason, found), count in sorted(counts.items())
    ]
    lines = columns([("reason", "letters", "what becomes of them"), *rows]) if rows else []
    return [*lines, f"redrove {total}" if executed else f"dry run, nothing was written: --yes would redrive {total}"]


def _notes(settings: Settings, counts: Counts, *, executed: bool) -> list[str]:
    coming = counts["key_mismatch", "redrive"]
    if not coming or settings.key_mismatch == "apply":
        return []
    verb = "come" if executed else "would come"
    note = (
        f"note: {coming} of them have a key that is not their conversation id, and {verb} back as key_mismatch: mend "
        f"whoever writes the topic, or copy it with `conversation-consumer rekey SOURCE TARGET`"
    )
    return [note]


class _Group(Struct):
    """The dead letters of one reason."""

    reason: str
    letters: int = 0
    redriven: int = 0
    left_out: int = 0
    first_ms: int = times.LATEST_MS
    last_ms: int = 0
    partitions: Counter[int] = field(default_factory=Counter)

    def add(self, sight: Sight) -> None:
        """Count a dead letter in."""
        letter = sight.letter
        self.letters += 1
        self.redriven += sight.is_redriven
        self.left_out += bool(letter.left_out)
        self.first_ms, self.last_ms = min(self.first_ms, letter.time_ms), max(self.last_ms, letter.time_ms)
        self.partitions[letter.original.partition] += 1

    def document(self) -> dict[str, Any]:
        """What `--json` shows."""
        return {
            "reason": self.reason,
            "letters": self.letters,
            "redriven": self.redriven,
            "withoutPayload": self.left_out,
            "first": times.text(self.first_ms),
            "last": times.text(self.last_ms),
            "inputPartitions": sorted(self.partitions),
        }

    def row(self) -> tuple[str, ...]:
        """What the table shows."""
        numbers = sorted(self.partitions)
        shown = ", ".join(map(str, numbers[:_PARTITIONS_SHOWN]))
        more = f" and {len(numbers) - _PARTITIONS_SHOWN} more" if len(numbers) > _PARTITIONS_SHOWN else ""
        counts = (str(self.letters), str(self.redriven), str(self.left_out))
        return (self.reason, *counts, times.text(self.first_ms), times.text(self.last_ms), shown + more)


def _document(sight: Sight, *, raw: bool) -> dict[str, Any]:
    """A dead letter as it is shown; with nothing of a customer's unless `raw`."""
    letter = sight.letter
    original = letter.original
    document: dict[str, Any] = {
        "time": times.text(letter.time_ms),
        "reason": letter.reason,
        "where": letter.detail,
        "place": f"{letter.partition}/{letter.offset}",
        "source": f"{original.topic}/{original.partition}/{original.offset}",
        "sourceTime": times.published(original.timestamp_ms),
        "version": letter.version,
        "redrives": letter.redrives,
        "redriven": sight.is_redriven,
    }
    if letter.left_out:
        return document | {"payload": letter.left_out}
    if raw:
        return document | _bytes("key", original.key) | _bytes("value", original.value)
    return document | {"keyBytes": _size(original.key), "valueBytes": _size(original.value)}


def newest_of_each_reason(documents: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """So many of each reason, in order of time."""
    of_reason: dict[str, deque[dict[str, Any]]] = {}
    for each in sorted(documents, key=_by_time):
        of_reason.setdefault(each["reason"], deque(maxlen=limit)).append(each)
    return sorted((each for some in of_reason.values() for each in some), key=_by_time)


def _by_time(document: dict[str, Any]) -> str:
    return str(document["time"])


def _size(text: bytes | None) -> int | None:
    return None if text is None else len(text)


def _bytes(name: str, text: bytes | None) -> dict[str, str | None]:
    """As text, or in base64 under another name where it is none."""
    try:
        return {name: None if text is None else text.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(text or b"").decode()}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _begin() -> Settings:
    settings = settings_or_exit()
    logs.mute_libraries()
    return settings


def _reading(settings: Settings, selection: Selection, note: Callable[[Sight], None]) -> None:
    """Read all dead letters that are asked for, under a bar."""

    async def read() -> None:
        async with Letters(settings) as letters:
            with progress("reading", letters.total) as advance:
                async with aclosing(letters.read(selection, advance)) as sights:
                    async for sight in sights:
                        note(sight)

    with exit_on_world_error():
        run_until_terminated(read())


async def _redrive(settings: Settings, order: Order) -> Counts:
    async with Letters(settings, to_write=order.execute) as letters:
        with progress("redriving" if order.execute else "reading", letters.total) as advance:
            return await letters.redrive(order, advance, warn)
