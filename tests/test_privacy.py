"""Secrets and personal data go nowhere: every property of every model is marked, and all that comes out is searched.

A mark is `MARK-<owner>.<property>-<n>z`. `KEPT` is the whole list of what may come out of which sink, with the reason;
it is compared for equality, so a mark that is allowed must be found as well.
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
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from consumer.adapters import logs
from consumer.adapters.embedded import PARTITIONS, EmbeddedBroker
from consumer.cli.exits import CONFIG, settings_or_exit
from consumer.cli.service import Service, running
from consumer.core import conversation
from consumer.core.step import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.runtime.settings import Settings
from schemas.inbound import FlatPayload, NestedPayload

OFFICIAL = json.loads((Path(__file__).parent / "data" / "event_models.json").read_text(encoding="utf-8"))
NESTED, FLAT, ARRAYS = OFFICIAL["nested"], OFFICIAL["flat"], OFFICIAL["arrays"]
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
CONSECUTIVE_MAX = 1_000
RECORD_BYTES_MAX = 200_000
COMMUNICATIONS_MAX = 50
FAULT = "internal.error"
HOSTILE = (
    b'"\xff?"',
    b'"?\xff?"',
    b'"\\?"',
    b'"\\ud800?"',
    b'"\\u?"',
    b"-?",
    b"'?'",
    b'"\x00?"',
    b'["?"]',
    b'{"?":',
    b"?",
    b'{"?":1}{',
)
USABLE = 72
"""Different conversations of `usable`, without those in a bare flat body, which are ignored."""
COUNT = itertools.count(1)

Rec = tuple[bytes | None, bytes | None, int]
"""Key, value, timestamp in milliseconds."""
Sinks = dict[str, str]


def of_arrays(*properties: str) -> set[str]:
    return {f"{array}.{each}" for array, model in ARRAYS.items() for each in properties if each in NESTED[model]}


def of_people(*properties: str) -> set[str]:
    """Of participants in both shapes."""
    return {f"{shape}participants.{each}" for shape in ("", "flat.") for each in properties}


CONVERSATIONS = {"conversation.id", "flat.conversation.id"}
# Ids say who took part in what. Enumerations are open: a value that nobody knows is kept as it came.
IDS = CONVERSATIONS | of_people("id", "userId", "queueId") | {"flat.user.id", "flat.queue.id"} | of_arrays("id")
OPEN = of_people("purpose", "state", "disconnectType") | of_arrays("state", "disconnectType")
ALSO_IDS = of_people("teamId", "externalContactId", "peer", "controlling") | {"flat.team.id", "flat.externalcontact.id"}
ALSO_OPEN = of_people("initialState", "direction", "provider", "type", "cobrowseRole") | {"messages.type"}
OF_COMMUNICATIONS = of_arrays("initialState", "direction", "provider", "peerId", "cobrowseRole", "controlling")
WRAPUP = {"wrapup.code", "flat.wrapup.code", "aftercallwork.state"}
KEPT: dict[str, set[str]] = {
    "state.key": CONVERSATIONS,
    "state.value": IDS | OPEN | ALSO_IDS | ALSO_OPEN | OF_COMMUNICATIONS | WRAPUP,
    "transitions.key": CONVERSATIONS,
    "transitions.value": IDS | OPEN,
    "log": {"planted.debug"},  # planted below, to see that the least level is captured
}
NOT_READ = {"internalMessages.peerId"}


def mark(label: str) -> str:
    return f"MARK-{label}-{next(COUNT)}z"


def found(sinks: Sinks) -> dict[str, set[str]]:
    """Labels of the marks in each sink that has any; folded enumerations are lower case."""
    labels = {sink: set(re.findall(r"mark-([a-z.]*)", text.lower())) for sink, text in sinks.items()}
    return {sink: each for sink, each in labels.items() if each}


def filled(models: dict[str, Any], kind: str, label: str, state: str = "") -> Any:
    """A value of an official type, full of marks. With `state`, states and times are real ones instead."""
    again = partial(filled, models, state=state)
    if kind.startswith("list["):
        return [again(kind[5:-1], label)]
    kind = "Participant" if kind.endswith("MediaParticipant") else kind
    owner = f"{'flat.' if label.startswith('flat.') else ''}{label.rsplit('.', 1)[-1]}"
    match kind:
        case "str" | "datetime" if not state or not (kind == "datetime" or label.endswith(".state")):
            return mark(label)
        case "str":
            return state
        case "datetime":
            return NOW_MS - HOUR_MS
        case "bool" | "int":
            return kind == "bool" or 7
        case _:
            shown = {name: again(each, f"{owner}.{name}") for name, each in models.get(kind, {}).items()}
            known = (
                {} if kind in models else {name: mark(f"{owner}.{name}") for name in ("id", "name", "code", "email")}
            )
            return {
                **shown,
                **known,
                mark(f"{owner}.unknownkey"): mark(f"{owner}.unknown"),
                "joinCode": mark("join.code"),
            }


def envelopes(topic: str, body: Any) -> list[Any]:
    """The three of them, their own properties marked."""
    name = topic.format(mark("topic"))
    notification = {"topicName": name, "version": mark("envelope.version"), "eventBody": body}
    notification |= {"metadata": {"CorrelationId": mark("metadata.id"), mark("metadata.key"): 1}}
    event = {each: mark(f"event.{each}") for each in ("id", "source", "account", "time", "region")}
    event |= {"detail-type": topic.format("{id}"), "resources": [mark("event.resources")]}
    return [notification, event | {"detail": notification | {"timestamp": mark("detail.timestamp")}}, body]


def record(document: Any, key: str | None = "", at_ms: int = NOW_MS) -> Rec:
    """A record of a JSON document or of raw bytes; without a `key`, one that fits nothing."""
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return None if key is None else (key or mark("record.key")).encode(), value, at_ms


def usable() -> Iterator[Rec]:
    shapes = [(f"users.{{}}.conversations.{each}", models, "flat.conversation") for each, models in FLAT.items()]
    shapes += [(f"{each}.{{}}.conversations", NESTED, "conversation") for each in ("users", "routing.queues")]
    for (topic, models, label), state, envelope in itertools.product(shapes, ("", "alerting", "terminated"), range(3)):
        body = filled(models, "Conversation", label, state)
        once = record(envelopes(f"v2.{topic}", body)[envelope], body["id"])
        yield from (once, once)


def wrong(struct: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
    """Documents with a mark of the wrong type in one used field, for each of them at any depth."""
    hints = typing.get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        yield {field.encode_name: mark("wrong.text")}
        yield {field.encode_name: {mark("wrong.mapkey"): mark("wrong.mapvalue")}}
        listed = [each for each in typing.get_args(hints[field.name]) if typing.get_origin(each) is list]
        for each in typing.get_args(listed[0] if listed else hints[field.name]):
            for hint in typing.get_args(each) or (each,):
                if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
                    yield from ({field.encode_name: [inner] if listed else inner} for inner in wrong(hint))


def unusable() -> Iterator[Rec]:
    for struct, topic in ((NestedPayload, "v2.users.u.conversations"), (FlatPayload, "v2.users.u.conversations.calls")):
        for document in wrong(struct):
            yield record(document)
            yield record({"topicName": topic, "detail-type": topic} | document)
    text = json.dumps(envelopes("v2.users.{}.conversations", filled(NESTED, "Conversation", "broken"))[0]).encode()
    yield from (record(text[:end]) for end in range(1, len(text), 997))
    for name, how in itertools.product((b"purpose", b"userId", b"name"), HOSTILE):
        value = how.replace(b"?", mark("raw.text").encode())
        yield record(b'{"id":"x","participants":[{"id":"y","%b":%b}]}' % (name, value), "x")
    yield from (record(how.replace(b"?", mark("raw.only").encode())) for how in HOSTILE)
    yield record(b'{"a":' * 300 + mark("deep.value").encode())
    yield record(mark("large.value").encode() * (RECORD_BYTES_MAX // 10))
    for key in (b"\xff" + mark("record.key").encode(), None):
        yield key, json.dumps(filled(NESTED, "Conversation", "broken")).encode(), NOW_MS
    nobody = [{"id": None, "name": mark("nobody.name")}]
    crowd = [{"id": "p", "calls": [{"id": mark("crowd.id"), "state": "x"} for _ in range(COMMUNICATIONS_MAX + 1)]}]
    for label, at_ms, people in (
        ("notime.id", 1, []),
        ("late.id", NOW_MS - 100 * HOUR_MS, []),
        ("nobody.id", NOW_MS, nobody),
        ("crowd.id", NOW_MS, crowd),
        (FAULT, NOW_MS, []),
    ):
        body: dict[str, Any] = {"id": mark(label), "participants": people}
        yield record(body, body["id"], at_ms)
    for document in envelopes("v2.users.{}.conversations", {"participants": nobody}):
        yield record(document)
    for name in ("channel.metadata", f"v2.system.{mark('system.name')}", mark("other.topic")):
        yield record({"topicName": name, "eventBody": {"message": mark("frame.message")}})
    yield record({"result": mark("reply.result"), "status": mark("reply.status")})
    yield record(None)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Secrets in the environment, and logging and the core put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    (tmp_path / "key").write_text(mark("secret.digestkey"))
    for name, value in {
        "CC_DIGEST_KEY_FILE": str(tmp_path / "key"),
        "CC_SASL_USERNAME": mark("secret.username"),
        "CC_SASL_PASSWORD": mark("secret.password"),
        "CC_SSL_KEY_PASSWORD": mark("secret.keypassword"),
        "CC_DELIVERY": "at_least_once",
        "CC_ADMIN_PORT": "0",
        "CC_LOG_LEVEL": "debug",
        "CC_RECORD_BYTES_MAX": str(RECORD_BYTES_MAX),
        "CC_COMMUNICATIONS_MAX": str(COMMUNICATIONS_MAX),
        "CC_DEAD_LETTERS_CONSECUTIVE_MAX": str(CONSECUTIVE_MAX),
        "CC_DEAD_LETTERS_WINDOW_RECORDS": "100000",
    }.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def write(settings: Settings, records: list[Rec]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        for key, value, at_ms in records:
            headers = [
                (mark("header.name"), mark("header.value").encode()),
                ("snapshot-time", mark("header.time").encode()),
            ]
            await producer.send(settings.input_topic, value, key=key, timestamp_ms=at_ms, headers=headers)
        await producer.flush()
    finally:
        await producer.stop()


async def read(settings: Settings, topic: str, name: str) -> Sinks:
    """Everything in an output topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    tps = [TopicPartition(topic, each) for each in range(PARTITIONS)]
    sinks = {f"{name}.key": b"", f"{name}.value": b"", f"{name}.header": b""}
    await consumer.start()
    try:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for each in itertools.chain(*(await consumer.getmany(timeout_ms=100)).values()):
                sinks[f"{name}.key"] += each.key or b""
                sinks[f"{name}.value"] += each.value or b""
                sinks[f"{name}.header"] += b"".join(part.encode() + (text or b"") for part, text in each.headers)
    finally:
        await consumer.stop()
    return {sink: text.decode("utf-8", "replace") for sink, text in sinks.items()}


async def asked(service: Service) -> Sinks:
    """What the admin port answers, also to what it does not know."""
    sinks = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{service.admin_port}") as session:
        for path in ("metrics", "livez", "readyz", "conversations"):
            async with session.get(f"/{path}", headers={"Accept": "application/openmetrics-text"}) as answer:
                sinks[path] = str(answer.headers) + await answer.text()
        async with session.post("/metrics") as answer:
            sinks["refused"] = str(answer.headers) + await answer.text()
    return sinks


def counts(metrics: str) -> dict[tuple[str, str], int]:
    """Records by disposition and reason."""
    lines = re.findall(r'records_total{disposition="(\w+)",reason="(\w*)"} (\S+)', metrics)
    return {(disposition, reason): int(float(count)) for disposition, reason, count in lines}


async def evidence(settings: Settings, capfd: pytest.CaptureFixture[str]) -> Sinks:
    """Run the worker over all records, then let the breaker open; everything that came out."""
    records = [*usable(), *unusable()]
    poison = mark("poison.key").encode(), mark("poison.value").encode(), NOW_MS
    async with asyncio.timeout(25):
        async with running(settings) as service:
            await write(settings, records)
            while sum(counts((await asked(service))["metrics"]).values()) < len(records):
                await asyncio.sleep(0.1)
            sinks = await asked(service)
            await write(settings, [poison] * CONSECUTIVE_MAX)
            while "too many dead letters" not in (after := await asked(service))["readyz"]:
                await asyncio.sleep(0.1)
            logs.logger().debug("planted", text=mark("planted.debug"))
            intake = service.worker._world.intake
            sinks["offsets"] = str([await intake.committed(each) for each in range(PARTITIONS)])
        sinks |= {f"{path}.blocked": text for path, text in after.items()}
        for topic, name in (
            (settings.state_topic, "state"),
            (settings.transitions_topic, "transitions"),
            (settings.dead_letters_topic, "dead"),
        ):
            sinks |= await read(settings, topic, name)
    done = counts(sinks["metrics"])
    assert sum(done.values()) == len(records)
    assert {reason for (_, reason), count in done.items() if count} == {"", *IGNORED_REASONS, *DEAD_LETTER_REASONS}
    assert done["applied", ""] >= USABLE
    sinks["log"] = "".join(capfd.readouterr())
    return sinks


@pytest.mark.parametrize("payload", ["keep", "drop"])
async def test_every_mark_is_only_where_it_may_be(
    payload: str, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def faulty(state: Any, snapshot: Any, *rest: Any) -> conversation.Applied:
        if FAULT in snapshot.conversation_id:
            raise ValueError(snapshot.conversation_id)
        return apply(state, snapshot, *rest)

    apply = conversation.apply
    environment.setattr(conversation, "apply", faulty)
    with EmbeddedBroker() as broker:
        environment.setenv("CC_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        environment.setenv("CC_DEAD_LETTER_PAYLOAD", payload)
        settings = settings_or_exit()
        broker.create_topics(
            (settings.input_topic, settings.state_topic, settings.transitions_topic, settings.dead_letters_topic)
        )
        logs.configure(settings)
        sinks = await evidence(settings, capfd)
    assert "breaker.opened" in sinks["log"]
    print({sink for sink, text in sinks.items() if not text})
    shown = found(sinks)
    if payload == "keep":  # a dead letter is the original, untouched
        assert shown.pop("dead.key") >= {"record.key", "late.id", "poison.key"}
        assert shown.pop("dead.value") >= {"wrong.mapvalue", "raw.text", "large.value", "cobrowsesessions.viewerurl"}
    for sink in sorted(shown.keys() | KEPT.keys()):
        print(sink, "LEAK", shown.get(sink,set())-KEPT.get(sink,set()), "UNSEEN", KEPT.get(sink,set())-shown.get(sink,set()))
    print(counts(sinks["metrics"]), {k: len(v) for k,v in sinks.items()})
    print(sinks["conversations"],sinks["refused"], sinks["offsets"], sinks["dead.header"][:300], sinks["readyz.blocked"])
    assert shown == KEPT


def test_a_mark_is_found_in_any_spelling_and_where_it_was_cut() -> None:
    assert found({"log": "x", "metrics": f"{mark('flat.viewerUrl').lower()}", "dead.header": "MARK-ca"}) == {
        "metrics": {"flat.viewerurl"},
        "dead.header": {"ca"},
    }


@pytest.mark.parametrize(
    ("wrong_settings", "told"),
    [
        ({"CC_DIGEST_KEY": "{}" * 9, "CC_SASL_PASWORD": "{}", "CC_BOOTSTRAP_SERVERS": "b:1"}, "CC_SASL_PASWORD"),
        ({"CC_BOOTSTRAP_SERVERS": "b:1", "CC_SASL_PASSWORD_FILE": "/none"}, "CC_SASL_PASSWORD"),
        ({"CC_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "consumer.failed"),
    ],
)
async def test_no_secret_is_told_when_starting_fails(
    wrong_settings: dict[str, str], told: str, environment: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker() as broker:
        environment.setenv("CC_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        for name, value in wrong_settings.items():
            environment.setenv(name, value.replace("{}", mark("secret.wrong")))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer", "run", env=dict(os.environ),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode
    assert told in output.decode()
    assert not found({"output": output.decode()})
