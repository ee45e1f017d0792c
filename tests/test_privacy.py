"""Secrets and personal data go nowhere: every property of every model is marked, and all that comes out is searched.

A mark is `MARK-<owner>.<property>-<n>z`. `KEPT` lists all that may come out, by sink; it is compared for equality, so
a mark that is allowed has to be found as well.
"""

import asyncio
import itertools
import json
import logging
import os
import re
import sys
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import Struct, structs

from consumer.adapters import logs
from consumer.adapters.kafka.embedded import PARTITIONS, EmbeddedBroker
from consumer.adapters.kafka.records import partition_of
from consumer.cli.exits import settings_or_exit
from consumer.cli.service import Service, running
from consumer.cli.story import record_lines
from consumer.core import conversation
from consumer.core.explain import explained
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.runtime.replay import Replay
from consumer.runtime.settings import Settings
from schemas.inbound import FlatParticipant, Participant
from schemas.state import ConversationState

OFFICIAL = json.loads((Path(__file__).parent / "data" / "event_models.json").read_text(encoding="utf-8"))
NESTED, FLAT, ARRAYS = OFFICIAL["nested"], OFFICIAL["flat"], OFFICIAL["arrays"]
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
CONSECUTIVE_MAX = 1_000
WITHIN_S = 120.0
"""Ends what would not end: it takes a few seconds."""
RECORD_BYTES_MAX = 200_000
COMMUNICATIONS_MAX = 50
FAULT = "internal.error"
HOSTILE = (b'"\xff?"', b'"?\xff?"', b'"\x00?"', *rb"""'?' -? ? "\?" "\u?" "\ud8?" ["?"] {"?": {"?":1}{""".split())
COUNT = itertools.count(1)
LABELS: set[str] = set()
"""Of all marks made so far."""

Rec = tuple[bytes | None, bytes | None, int]
"""Key, value, timestamp in milliseconds."""
Sinks = dict[str, str]


def of_arrays(*properties: str) -> set[str]:
    return {f"{array}.{each}".lower() for array in ARRAYS for each in properties}


def of_people(*properties: str) -> set[str]:
    return {f"{shape}participants.{each}".lower() for shape in ("", "flat.") for each in properties}


CONVERSATION = {"conversation.id", "flat.conversation.id"}
# Ids say who took part in what. Enumerations are open: a value that nobody knows is kept as it came.
WHO = CONVERSATION | of_people("id", "userId", "queueId") | {"flat.user.id", "flat.queue.id"} | of_arrays("id")
WHAT = of_people("purpose", "state", "disconnectType") | of_arrays("state", "disconnectType")
MORE = ("initialState", "direction", "provider", "type", "peer", "peerId", "cobrowseRole", "controlling")
MORE_WHO = of_people("teamId", "externalContactId") | {"flat.team.id", "flat.externalcontact.id"}
WORK = {"wrapup.code", "flat.wrapup.code", "aftercallwork.state"}
KEPT = {
    "state.key": CONVERSATION,
    "state.value": WHO | WHAT | MORE_WHO | WORK | of_people(*MORE) | of_arrays(*MORE) - {"internalmessages.peerid"},
    "transitions.key": CONVERSATION,
    "transitions.value": WHO | WHAT,
    "log": {"planted.debug"},  # to see that lines of the least level are captured
}
"""In the outputs also labels of properties that the models do not have: they cannot be found."""


def mark(label: str) -> str:
    LABELS.add(label.lower())
    return f"MARK-{label}-{next(COUNT)}z"


def found(sinks: Sinks) -> dict[str, set[str]]:
    """Labels of the marks in each sink that has any; folded enumerations are lower case."""
    labels = {sink: set(re.findall(r"mark-([a-z.]*)", text.lower())) for sink, text in sinks.items()}
    return {sink: each for sink, each in labels.items() if each}


def filled(models: dict[str, Any], kind: str, label: str, state: str = "") -> Any:
    """A value of an official type, full of marks. With `state`, states and times are real ones instead."""
    if kind.startswith("list["):
        return [filled(models, kind[5:-1], label, state)]
    if kind in {"bool", "int"}:
        return kind == "bool" or 7
    if kind in {"str", "datetime"}:
        real = {"datetime": NOW_MS - HOUR_MS}.get(kind, state if label.endswith(".state") else None)
        return real if state and real else mark(label)
    owner = f"{'flat.' if label.startswith('flat.') else ''}{label.rsplit('.', 1)[-1]}"
    model = models.get("Participant" if kind.endswith("MediaParticipant") else kind)
    model = model or dict.fromkeys(("id", "name", "code", "email"), "str")
    shown = {name: filled(models, each, f"{owner}.{name}", state) for name, each in model.items()}
    return shown | {"joinCode": mark("join.code"), mark("unknown.key"): {mark("unknown.key"): mark("unknown.value")}}


def envelopes(topic: str, body: Any) -> tuple[Any, Any, Any]:
    """The three of them, their own properties marked."""
    head = {"topicName": topic.format(mark("topic")), "version": mark("envelope.version")}
    notification = head | {"eventBody": body, "metadata": {"CorrelationId": mark("metadata.id")}}
    event: dict[str, Any] = {each: mark(f"event.{each}") for each in ("id", "source", "account", "time", "resources")}
    detail = notification | {"timestamp": mark("detail.timestamp")}
    return notification, event | {"detail-type": topic.format("{id}"), "detail": detail}, body


def record(document: Any, key: str = "", at_ms: int = NOW_MS) -> Rec:
    """A record of a JSON document or of raw bytes; without a `key`, one that fits nothing."""
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return (key or mark("record.key")).encode(), value, at_ms


def usable() -> Iterator[Rec]:
    """Every record twice, in every shape and envelope; bare flat ones are ignored."""
    shapes = [(f"users.{{}}.conversations.{each}", models, "flat.conversation") for each, models in FLAT.items()]
    shapes += [(f"{each}.{{}}.conversations", NESTED, "conversation") for each in ("users", "routing.queues")]
    for (topic, models, label), state, envelope in itertools.product(shapes, ("", "alerting", "terminated"), range(3)):
        body = filled(models, "Conversation", label, state)
        once = record(envelopes(f"v2.{topic}", body)[envelope], body["id"])
        yield from (once, once)


def wrong(struct: type[Struct]) -> Iterator[dict[str, Any]]:
    """Objects with a mark of a wrong type in one used field, for each of them at any depth."""
    hints = typing.get_type_hints(struct)
    for field in structs.fields(struct):
        name, options = field.encode_name, typing.get_args(hints[field.name])
        yield {name: {mark("wrong.mapkey"): mark("wrong.mapvalue")}}
        if str not in options:
            yield {name: mark("wrong.text")}
        listed = [each for option in options for item in typing.get_args(option) for each in typing.get_args(item)]
        for inner in listed or options:
            if issubclass(inner, Struct):
                yield from ({name: [each] if listed else each} for each in wrong(inner))


def unusable() -> Iterator[Rec]:
    """Records that are ignored or rejected, for every reason there is; of the hostile ones a few apply."""
    for struct, topic in (
        (Participant, "v2.users.{}.conversations"),
        (FlatParticipant, "v2.users.{}.conversations.calls"),
    ):
        for person in wrong(struct):
            yield from (record(each, "x") for each in envelopes(topic, {"id": "x", "participants": [person]}))
    for name in ("id", "participants", "topicName", "eventBody", "detail", "detail-type", "timestamp"):
        for value in (mark("wrong.text"), [mark("wrong.item")], {mark("wrong.mapkey"): mark("wrong.mapvalue")}):
            for outer in ({}, {"topicName": "v2.users.u.conversations"}):
                inner = outer | {name: value}
                yield from map(record, (inner, outer | {"eventBody": inner}, outer | {"detail": inner}))
    body = filled(NESTED, "Conversation", "broken")
    text = json.dumps(envelopes("v2.users.{}.conversations", body)[0]).encode()
    yield from (record(text[:end]) for end in range(1, len(text), 997))
    for how in (each.replace(b"?", mark("raw.text").encode()) for each in HOSTILE):
        yield record(how)
        for used in (b"purpose", b"userId", b"name"):
            yield record(b'{"id":"x","participants":[{"id":"y","%b":%b}]}' % (used, how), "x")
    yield record(b'{"a":' * 300 + mark("deep.value").encode())
    yield record(mark("large.value").encode() * (RECORD_BYTES_MAX // 10))
    yield from ((key, text, NOW_MS) for key in (b"\xff" + mark("record.key").encode(), None))
    nobody = [{"id": None, "name": mark("nobody.name")}]
    crowd = [{"id": "p", "calls": [{"id": mark("crowd.call"), "state": "x"} for _ in range(COMMUNICATIONS_MAX + 1)]}]
    old = {"notime.id": NOW_MS - 1, "late.id": 100 * HOUR_MS}
    for label, people in {"notime.id": [], "late.id": [], FAULT: [], "nobody.id": nobody, "crowd.id": crowd}.items():
        body, age_ms = {"id": mark(label), "participants": people}, old.get(label, 0)
        yield record(body, body["id"], NOW_MS - age_ms)
    yield from map(record, envelopes("v2.users.{}.conversations", {"participants": nobody}))
    for other in ("channel.metadata", f"v2.system.{mark('topic')}", mark("topic")):
        yield record({"topicName": other, "eventBody": {"message": mark("frame.message")}})
    yield from (record({"result": mark("reply.result"), "status": mark("reply.status")}), record(None))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Settings with secrets; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    (tmp_path / "key").write_text(mark("secret.digestkey"), encoding="utf-8")
    monkeypatch.setenv("CC_DIGEST_KEY_FILE", str(tmp_path / "key"))
    for name in ("SASL_USERNAME", "SASL_PASSWORD", "SSL_KEY_PASSWORD"):
        monkeypatch.setenv(f"CC_{name}", mark("secret.credentials"))
    numbers = {
        "ADMIN_PORT": 0,
        "QUERY_PORT": 0,
        "RECORD_BYTES_MAX": RECORD_BYTES_MAX,
        "COMMUNICATIONS_MAX": COMMUNICATIONS_MAX,
    }
    limits = {"DEAD_LETTERS_CONSECUTIVE_MAX": CONSECUTIVE_MAX, "DEAD_LETTERS_WINDOW_RECORDS": 100_000}
    for name, value in (numbers | limits | {"DELIVERY": "at_least_once", "LOG_LEVEL": "debug"}).items():
        monkeypatch.setenv(f"CC_{name}", str(value))
    yield monkeypatch
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def write(settings: Settings, records: list[Rec]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        for key, value, at_ms in records:
            headers = [(name, mark("header.value").encode()) for name in ("snapshot-time", mark("header.name"))]
            await producer.send(settings.input_topic, value, key=key, timestamp_ms=at_ms, headers=headers)


async def read(settings: Settings, topic: str, name: str) -> Sinks:
    """Everything in an output topic."""
    sinks = dict.fromkeys((f"{name}.key", f"{name}.value", f"{name}.header"), "")
    tps = [TopicPartition(topic, each) for each in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False) as consumer:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for each in itertools.chain(*(await consumer.getmany(timeout_ms=100)).values()):
                parts = (each.key, each.value, b"".join(name.encode() + (text or b"") for name, text in each.headers))
                for sink, part in zip(sinks, parts, strict=True):
                    sinks[sink] += (part or b"").decode("utf-8", "replace")
    return sinks


async def asked(service: Service) -> Sinks:
    """What the admin port answers, also to what it does not know."""
    sinks = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{service.admin_port}") as session:
        for path in ("metrics", "livez", "readyz", "no/such/page"):
            for method in ("GET", "POST"):
                async with session.request(method, f"/{path}") as answer:
                    sinks[f"{method} {path}"] = f"{answer.headers} {await answer.text()}"
    return sinks


def counts(sinks: Sinks) -> dict[str, int]:
    """Records by reason, or by disposition where there is none."""
    lines = re.findall(r'records_total{disposition="(\w+)",reason="(\w*)"} (\S+)', sinks["GET metrics"])
    return {reason or disposition: int(float(count)) for disposition, reason, count in lines}


async def evidence(settings: Settings, records: list[Rec]) -> Sinks:
    """Run the worker over all records, then open the breaker; everything that came out but the log."""
    key, value = mark("poison.key"), mark("poison.value").encode()
    keys = (found for number in itertools.count() if partition_of(found := f"{key}{number}".encode(), PARTITIONS) == 0)
    poison: list[Rec] = [(each, value, NOW_MS) for each in itertools.islice(keys, CONSECUTIVE_MAX)]
    async with running(settings) as service:
        await write(settings, records)
        while sum(counts(sinks := await asked(service)).values()) < len(records):
            await asyncio.sleep(0.1)
        await write(settings, poison)
        while "too many dead letters" not in (blocked := await asked(service))["GET readyz"]:
            await asyncio.sleep(0.1)
        logs.logger().debug("planted", text=mark("planted.debug"))
        intake = service.worker._world.intake
        sinks["offsets"] = str([await intake.committed(each) for each in range(PARTITIONS)])
    sinks |= {f"{path}, blocked": text for path, text in blocked.items()}
    sinks |= await read(settings, settings.state_topic, "state")
    sinks |= await read(settings, settings.transitions_topic, "transitions")
    return sinks | await read(settings, settings.dead_letters_topic, "dead")


@pytest.mark.parametrize("payload", ["keep", "drop"])
async def test_every_mark_is_only_where_it_may_be(
    payload: str, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def faulty(state: ConversationState, *rest: Any) -> conversation.Applied:
        if FAULT in state.conversation_id:
            raise ValueError(state.conversation_id)
        return apply(state, *rest)

    apply, records = conversation.apply, [*usable(), *unusable()]
    environment.setattr(conversation, "apply", faulty)
    with EmbeddedBroker() as broker:
        environment.setenv("CC_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        environment.setenv("CC_DEAD_LETTER_PAYLOAD", payload)
        s = settings_or_exit()
        broker.create_topics(s.topics)
        logs.configure(s)
        async with asyncio.timeout(WITHIN_S):
            sinks = await evidence(s, records)
    sinks["log"] = "".join(capfd.readouterr())
    done = counts(sinks)
    assert sum(done.values()) == len(records)
    assert all(done[reason] for reason in ("applied", "unchanged", *IGNORED_REASONS, *DEAD_LETTER_REASONS)), done
    assert done["applied"] >= 2 * 3 * (len(FLAT) + 3)  # two envelopes of the flat shapes, three of both nested ones
    assert all(each in sinks["state.value"] for each in ('"viewable":true', "cobrowseSessionDigest", "roomDigest"))
    assert "breaker.opened" in sinks["log"]
    shown = found(sinks)
    if payload == "keep":  # a dead letter is the original, untouched
        assert shown.pop("dead.key") >= {"record.key", "late.id", "poison.key"}
        assert shown.pop("dead.value") >= {"wrong.mapvalue", "raw.text", "large.value", "cobrowsesessions.viewerurl"}
    assert shown == {sink: labels & LABELS for sink, labels in KEPT.items()}


def test_a_mark_is_found_in_any_case_and_where_it_was_cut() -> None:
    sinks = {"log": "nothing", "metrics": mark("flat.viewerUrl").lower(), "dead.header": "MARK-ca"}
    assert found(sinks) == {"metrics": {"flat.viewerurl"}, "dead.header": {"ca"}}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"CC_DIGEST_KEY": "{}" * 9, "CC_SASL_PASWORD": "{}"}, "CC_SASL_PASWORD"),
        ({"CC_SASL_PASSWORD_FILE": "{}"}, "CC_SASL_PASSWORD_FILE: cannot read"),  # the secret, not its file
        ({"CC_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "CC_SASL_MECHANISM": "PLAIN"}, "consumer.failed"),
    ],
)
async def test_no_secret_is_told_when_starting_fails(
    broken: dict[str, str], told: str, environment: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker() as broker:
        environment.setenv("CC_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        for name, value in broken.items():
            environment.setenv(name, value.replace("{}", mark("secret.broken")))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer", "run", env=dict(os.environ),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode
    assert told in output.decode()
    assert not found({"output": output.decode()})


def test_what_explains_a_record_tells_no_more_than_state_and_transitions_do() -> None:
    replay, told = Replay(Rules(communications_max=COMMUNICATIONS_MAX, record_bytes_max=RECORD_BYTES_MAX)), []
    for offset, (key, value, at_ms) in enumerate(itertools.chain(usable(), unusable())):
        taken = Record("t", 0, offset, at_ms, key, value)
        before, outcome = replay.take(taken)
        explanation = explained(taken, Rules(), before, outcome)
        told.append(msgspec.json.encode(explanation).decode())
        told.extend(record_lines(explanation, {}, consumed=True))
    kept = KEPT["state.value"] | KEPT["transitions.value"]
    ((_, labels),) = found({"why": "\n".join(told)}).items()
    assert labels <= kept
    assert labels >= (WHO | WHAT) & LABELS
