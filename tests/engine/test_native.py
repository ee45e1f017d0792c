"""What only the native engine has: records that it declines, and panics."""

import itertools
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core.lifecycle import DISCONNECT_TYPES, RANKS
from consumer.core.notification_topics import TEMPLATES
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.engine.circuit_breaker import BreakerLimits
from consumer.engine.dead_letters import DeadLetterFormat
from consumer.engine.protocol import EngineFailedError
from consumer.engine.python import EngineOptions, PythonEngine
from tests.engine.mutation import ODD_FRAMES, ODD_SPELLINGS
from tests.engines import as_fetched, engine_class, list_outputs
from tests.strategies import NESTED_TOPICS, at, eventbridge, make_record, number_offsets, websocket
from tests.worker.scenes import call, rubbish

OPTIONS = EngineOptions(
    Rules(),
    BreakerLimits(0.5, 1_000, 100),
    DeadLetterFormat(keep_payload=True, payload_bytes_max=1_000_000, version="0"),
)


@pytest.fixture
def native() -> Any:
    return sys.modules[engine_class("native").__module__]


class PanickingCore:
    """Panics at one offset, after the records before it: the native core gets a count of one record too many."""

    def __init__(self, core: Any, offset: int) -> None:
        self._core, self._offset, self.position = core, offset, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._core, name)

    def process(self, records: list[Record], first: int, end: int, *rest: object) -> object:
        for index in range(first, end):
            if records[index].offset == self._offset:
                self.position = index
                before = as_fetched(records[first:index])
                return self._core.process(before, 0, len(before) + 1, *rest)
        return self._core.process(records, first, end, *rest)


def calls(first: int, count: int) -> list[Record]:
    offsets = range(first, first + count)
    return [call(offset, "connected", offset, f"c{offset % 3}") for offset in offsets]


def test_record_that_panics_is_processed_in_python(native: Any) -> None:
    engine, reference = native.NativeEngine(OPTIONS), PythonEngine(OPTIONS)
    for both in (engine, reference):
        both.start(0, None)
        both.process(calls(0, 4), 0, 1.0, now_s=0.0, now_ms=0)
        both.outputs()
        both.commit(4)
    core = engine._core
    engine._core = PanickingCore(core, 6)
    with pytest.raises(EngineFailedError, match="panicked at offset 6: index out of bounds"):
        engine.process(calls(4, 5), 0, 1.0, now_s=0.0, now_ms=0)
    engine.rollback()
    engine._core = core
    for both in (engine, reference):
        both.start(4, both.stream_ms)
        assert both.process(calls(4, 5), 0, 1.0, now_s=0.0, now_ms=0).stopped_by == "end"
    assert engine.stats.declined == {"panic": 1}
    assert list_outputs(engine) == list_outputs(reference)


def make_large(offset: int, name: str) -> Record:
    """A record of 100 KB, nearly all of which is kept."""
    session = {"id": "m1", "state": "alerting", "controlling": [f"{number:0250}" for number in range(400)]}
    body = {"id": name, "participants": [{"id": "p1", "cobrowsesessions": [session]}]}
    return make_record(body, seconds=offset, key=name, offset=offset)


STARVING = """
import resource
from consumer.engine.native import NativeEngine
from tests.engine.test_native import OPTIONS, as_fetched, make_large

records = as_fetched([make_large(n, f"c{n}") for n in range(500)])
engine = NativeEngine(OPTIONS)
engine.start(0, None)
with open("/proc/self/statm") as pages:
    size = int(pages.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), resource.RLIM_INFINITY))
engine.process(records, 0, 600.0, now_s=0.0, now_ms=0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_allocation_that_fails_ends_the_process(native: Any) -> None:  # noqa: ARG001 - it has to be built
    """As a kill would: nothing handles it, and nothing is left half done in a process that goes on."""
    ended = subprocess.run([sys.executable, "-c", STARVING], capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == -signal.SIGABRT, ended.stderr
    assert "memory allocation of" in ended.stderr


def test_declined_records_are_counted_by_reason(native: Any) -> None:
    engine = native.NativeEngine(OPTIONS)
    engine.start(0, None)
    records = [*calls(0, 2), rubbish(2), *calls(3, 1)]
    engine.process(records, 0, 1.0, now_s=0.0, now_ms=0)
    assert engine.stats.declined == {"json": 1}
    assert engine.stats.records == {("applied", ""): 3, ("dead_lettered", "bad_json"): 1}


def test_frames_that_are_no_updates_are_not_declined(native: Any) -> None:
    topics = ["channel.metadata", "CHANNEL.Metadata", "channel.metadata.x", "v2.system.socket_closing", "v2.system"]
    topics += ["v2", "v2.users.x.conversations.faxes", "v2.users.x.conversations.calls.y", "v2.detail.events.x.acw"]
    values = [websocket(topic, {"message": "no update"}) for topic in topics]
    values += [eventbridge(topic, {"participants": [None]}) for topic in topics]
    records = [make_record(value, seconds=9, key=None, offset=offset) for offset, value in enumerate(values)]
    engine, reference = process_on_both(native, *records)
    assert engine.stats == reference.stats
    assert engine.stats.records.total() == len(records)
    assert not engine.stats.declined
    assert engine.next_offset == reference.next_offset == len(records)


def test_shape_is_known_wherever_the_topic_stands(native: Any) -> None:
    flat = {"id": "p1", "state": "connected", "connectedTime": at(1)}
    nested = {"id": "p1", "calls": [{"id": "m1", "state": "connected", "connectedTime": at(1)}]}
    records: list[Record] = []
    for topic, participant in ((NESTED_TOPICS[0], nested), (f"{NESTED_TOPICS[0]}.calls", flat)):
        members = list(websocket(topic, {"id": "c1", "participants": [participant]}).items())
        for number, ordered in enumerate((members, members[::-1])):
            value = dict(ordered)
            records.append(make_record(value, seconds=9 + number, key="c1", offset=len(records)))
    engine, reference = process_on_both(native, *records)
    assert list_outputs(engine) == list_outputs(reference)
    assert engine.stats.records == reference.stats.records == {("applied", ""): 4}
    assert not engine.stats.declined


def test_states_beyond_what_is_held_are_decoded_again(native: Any) -> None:
    engine, reference = native.NativeEngine(OPTIONS), PythonEngine(OPTIONS)
    for both in (engine, reference):
        both.start(0, None)
        for first in range(0, 600, 100):
            records = [make_large(n, f"c{n % 300}") for n in range(first, first + 100)]
            both.process(records, 0, 60.0, now_s=0.0, now_ms=0)
            assert both.outputs().states
            both.commit(first)
    held, held_bytes = engine._core.count_held()
    assert held < len(engine.states) == 300
    assert held_bytes <= 4 << 20
    assert dict(engine.states.items()) == dict(reference.states.items())


@pytest.mark.parametrize("later_s", [1.999, 2.0, 2.001])
def test_engines_agree_where_a_change_of_control_begins(native: Any, later_s: float) -> None:
    session = {"id": "s1", "state": "connected", "connectedTime": at(1), "providerEventTime": at(1 + later_s)}
    body = {"id": "c1", "participants": [{"id": "p1", "cobrowsesessions": [session]}]}
    records = [make_record(websocket(NESTED_TOPICS[0], body), seconds=9, key="c1", offset=0)]
    engines = [native.NativeEngine(OPTIONS), PythonEngine(OPTIONS)]
    for engine in engines:
        engine.start(0, None)
        engine.process(records, 0, 1.0, now_s=0.0, now_ms=0)
    assert not engines[0].stats.declined
    assert list_outputs(engines[0]) == list_outputs(engines[1])


def process_on_both(native: Any, *records: Record) -> list[PythonEngine]:
    """Both engines after the same records."""
    engines = [native.NativeEngine(OPTIONS), PythonEngine(OPTIONS)]
    for engine in engines:
        engine.start(0, None)
        engine.process(list(records), 0, 60.0, now_s=0.0, now_ms=0)
    return engines


def test_engines_know_the_same_states_types_and_topics(native: Any) -> None:
    """The native engine has lists of its own."""
    topics = [template.replace("{id}", "x") for template in TEMPLATES if "{id}" in template]
    legs = [{"state": state} for state in RANKS]
    legs += [{"state": "disconnected", "disconnectType": kind} for kind in DISCONNECT_TYPES]
    records = []
    for offset, (topic, leg) in enumerate(itertools.product(topics, legs)):
        flat = {"id": "p1", **leg}
        nested = {"id": "p1", "calls": [{"id": "m1", **leg}]}
        name = f"c{offset}"
        body = {"id": name, "participants": [nested if topic in NESTED_TOPICS else flat]}
        records.append(make_record(websocket(topic, body), seconds=9, key=name, offset=offset))
    engine, reference = process_on_both(native, *records)
    assert list_outputs(engine) == list_outputs(reference)
    assert engine.stats.anomalies == reference.stats.anomalies
    assert engine.stats.templates == reference.stats.templates


def test_restored_state_replaces_what_was_held(native: Any) -> None:
    """Another worker had the partition in between."""
    engine, reference = process_on_both(native, call(0, "alerting", 0))
    (newer,) = process_on_both(native, call(0, "alerting", 0), call(1, "connected", 1, userId="u2"))[1].outputs().states
    for one in (engine, reference):
        one.outputs()
        one.commit(1)
        one.states.restore([(newer.key or b"", newer.value)])
        while one.states.settle(10):
            pass
        one.process([call(2, "disconnected", 2)], 0, 60.0, now_s=0.0, now_ms=0)
    assert list_outputs(engine) == list_outputs(reference)


def test_state_that_is_published_is_what_is_committed(native: Any) -> None:
    engine, reference = process_on_both(native, *calls(0, 2))
    for one in (engine, reference):
        one.outputs()
        one.process(calls(2, 2), 0, 60.0, now_s=0.0, now_ms=0)
        published = {output.key: output.value for output in one.outputs().states}
        one.commit(4)
        assert {name.encode(): state for name, state in one.states.items()} == published
    assert dict(engine.states.items()) == dict(reference.states.items())


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_outputs_stay_as_they_were_handed_out(native: Any, end: str) -> None:
    """The live page reads transitions of earlier commits, also those of a record that was declined."""
    (declined,) = calls(2, 1)
    declined = replace(declined, headers=(("snapshot-time", b"%d" % declined.timestamp_ms),))
    engine, reference = process_on_both(native, *calls(0, 2), declined, *calls(3, 2))
    assert engine.stats.declined == {"time": 1}
    before, staged = engine.outputs(), list_outputs(engine)
    if end == "commit":
        engine.commit(4)
    else:
        engine.rollback()
    engine.process(calls(5, 2), 0, 60.0, now_s=0.0, now_ms=0)
    assert (list(before.states), list(before.transitions)) == (staged.states, staged.transitions)
    assert staged == list_outputs(reference)
    assert before.transitions[-1] == before.transitions[len(before.transitions) - 1]
    with pytest.raises(IndexError):
        before.transitions[len(before.transitions)]


def test_state_with_names_in_the_wrong_place_is_left_to_python(native: Any) -> None:
    (output,) = process_on_both(native, call(0, "alerting", 0))[1].outputs().states
    damaged = (output.value or b"").replace(b'"timeClass":"snapshot"', b'"timeClass":"call"')
    engine = native.NativeEngine(OPTIONS)
    engine.start(0, None)
    engine.states.restore([(output.key or b"", damaged)])
    while engine.states.settle(10):
        pass
    engine.process([call(1, "connected", 1)], 0, 60.0, now_s=0.0, now_ms=0)
    assert engine.stats.declined == {"state": 1}
    assert engine.stats.records == {("dead_lettered", "internal_error"): 1}


COMMON_FRAMES: list[tuple[Callable[[bytes], bytes], list[str]]] = [
    (lambda value: b"\xef\xbb\xbf" + value, ["byte_order_mark"]),
    (lambda value: b"\0\xff\xff\xff\xff" + value, ["confluent"]),
    (lambda value: b"\0\0\0\0\x07\xef\xbb\xbf" + value, ["confluent", "byte_order_mark"]),
    (lambda value: b'{"schema":{"type":"struct"},"payload":' + value + b"}", ["connect"]),
    (lambda value: b' {\n"schema" : null ,\t"payload" : ' + value + b" }\r\n", ["connect"]),
    (
        lambda value: b'\0\0\0\0\x07\xef\xbb\xbf{"schema":[],"payload":' + value + b"}",
        ["confluent", "byte_order_mark", "connect"],
    ),
]
COMMON_SPELLINGS: list[tuple[Callable[[bytes], bytes], list[str]]] = [
    (lambda key: key, []),
    (lambda key: b'"' + key + b'"', ["key_text"]),
    (lambda key: b"\0\0\0\0\x05" + key, ["key_confluent"]),
    (lambda key: b'\0\0\0\0\x05"' + key + b'"', ["key_confluent", "key_text"]),
]


@pytest.mark.parametrize("number", range(len(COMMON_FRAMES)))
def test_common_frames_and_spellings_are_not_declined(native: Any, number: int) -> None:
    """What they hold may be of either envelope, or bare; a repeated participant is recognized within them."""
    frame, framings = COMMON_FRAMES[number]
    legs = [{"id": "m1", "state": "connected"}, {"id": "m1", "state": "disconnected"}]
    body: dict[str, Any] = {"id": "c1", "participants": [{"id": f"p{leg['state']}", "calls": [leg]} for leg in legs]}
    events = [body, websocket(NESTED_TOPICS[0], body), eventbridge(NESTED_TOPICS[0], body), websocket("v2.system", {})]
    expected: Counter[str] = Counter()
    records: list[Record] = []
    for (spell, spellings), event in itertools.product(COMMON_SPELLINGS, events):
        plain = make_record(event, seconds=9 + len(records), key="c1", offset=len(records))
        records.append(replace(plain, key=spell(b"c1"), value=frame(plain.value or b"")))
        if event is not events[-1]:
            expected.update([*framings, *spellings])
    engine, reference = process_on_both(native, *records)
    assert not engine.stats.declined
    assert engine.stats == reference.stats
    assert engine.stats.framings == expected
    assert list_outputs(engine) == list_outputs(reference)


def test_odd_frames_and_spellings_are_left_to_python(native: Any) -> None:
    plain = make_record({"id": "c1", "participants": [{"id": "p1", "calls": [{"id": "m1"}]}]}, seconds=9, key="c1")
    records = [replace(plain, value=frame(plain.value or b"")) for frame in ODD_FRAMES]
    records += [replace(plain, key=spell(b"c1")) for spell in ODD_SPELLINGS]
    engine, reference = process_on_both(native, *number_offsets(records))
    assert engine.stats.declined.total() == len(records)
    assert list_outputs(engine) == list_outputs(reference)
    assert engine.stats.framings == reference.stats.framings


@pytest.mark.parametrize(("conversation_id", "key"), [('"c1"', '"c1"'), (r"c\n1", r'"c\n1"'), ("c\n1", '"c\n1"')])
def test_id_with_marks_is_not_the_id_that_its_key_seems_to_spell(native: Any, conversation_id: str, key: str) -> None:
    """A key is the id with its quotes where the body says so; what escapes stand for is left to Python."""
    body = {"id": conversation_id, "participants": [{"id": "p1", "calls": [{"id": "m1"}]}]}
    engine, reference = process_on_both(native, make_record(body, seconds=9, key=key))
    assert engine.stats.declined == {"key": 1}
    assert list_outputs(engine) == list_outputs(reference)
    assert not engine.stats.framings
