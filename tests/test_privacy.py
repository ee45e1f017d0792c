"""No secret or personal data leaks: every property of every model holds a mark, and every output is searched for marks.

A mark looks like `MARK-<owner>.<property>-<n>z`. `KEPT` lists the marks allowed in each sink. It is compared for
equality: an allowed mark has to occur, too.
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
from click.testing import CliRunner
from msgspec import Struct, structs

from consumer.__main__ import main
from consumer.app.service import Service, running
from consumer.cli.exit_codes import CONFIG, settings_or_exit
from consumer.cli.render import record_lines
from consumer.core import conversation
from consumer.core.reasons import DEAD_LETTER_REASONS, IGNORED_REASONS
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.kafka.embedded import PARTITIONS, EmbeddedBroker
from consumer.kafka.records import partition_of
from consumer.settings import Settings
from consumer.telemetry import logs
from consumer.tools.explain import explain
from consumer.tools.replay import Replay
from schemas.inbound import FlatParticipant, Participant
from schemas.state import ConversationState
from tests.strategies import FRAMES

OFFICIAL = json.loads((Path(__file__).parent / "data" / "event_models.json").read_text(encoding="utf-8"))
ARRAYS = OFFICIAL["arrays"]
NESTED = OFFICIAL["nested"] | OFFICIAL["shared"]
NESTED |= {name: NESTED[name] | more for name, more in OFFICIAL["rest"].items()}
FLAT = {medium: models | OFFICIAL["shared"] for medium, models in OFFICIAL["flat"].items()}
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
CONSECUTIVE_MAX = 1_000
WITHIN_S = 120.0
"""The timeout of a run that takes a few seconds."""
RECORD_BYTES_MAX = 200_000
COMMUNICATIONS_MAX = 50
FAULT = "internal.error"
HOSTILE = (b'"\xff?"', b'"?\xff?"', b'"\x00?"', *rb"""'?' -? ? "\?" "\u?" "\ud8?" ["?"] {"?": {"?":1}{""".split())
COUNT = itertools.count(1)
LABELS: set[str] = set()
"""The labels of all marks so far."""

Rec = tuple[bytes | None, bytes | None, int]
"""Key, value, timestamp in milliseconds."""
Sinks = dict[str, str]


def label_arrays(*properties: str) -> set[str]:
    return {f"{array}.{name}".lower() for array in ARRAYS for name in properties}


def label_people(*properties: str) -> set[str]:
    return {f"{shape}participants.{name}".lower() for shape in ("", "flat.") for name in properties}


CONVERSATION = {"conversation.id", "flat.conversation.id"}
# Ids say who took part in what. Enumerations are open: an unknown value is kept unchanged.
WHO = CONVERSATION | label_people("id", "userId", "queueId") | {"flat.user.id", "flat.queue.id"} | label_arrays("id")
WHAT = label_people("purpose", "state", "disconnectType") | label_arrays("state", "disconnectType")
MORE = ("initialState", "direction", "provider", "type", "peer", "peerId", "cobrowseRole", "controlling")
MORE_WHO = label_people("teamId", "externalContactId") | {"flat.team.id", "flat.externalcontact.id"}
ROLES = ("consultParticipantId", "monitoredParticipantId", "coachedParticipantId", "bargedParticipantId")
MORE_WHO |= label_people("groupId", *ROLES) | {"flat.group.id", "initiator.userid", "destination.userid"}
WORK = {"wrapup.code", "flat.wrapup.code", "aftercallwork.state"}
WHY = {"errorinfo.code", "flat.errorinfo.code", "disconnectreasons.type"}
ASKED = {"language.id", "flat.language.id", "skills.id", "flat.skills.id"}
OF_CONVERSATION = {"conversation.externaltag", "division.id", "flat.division.id"}
OF_CONVERSATION |= {f"recenttransfers.{name}" for name in ("id", "state", "transfertype")}
KEPT = {
    "state.key": CONVERSATION,
    "state.value": WHO
    | WHAT
    | MORE_WHO
    | WORK
    | WHY
    | ASKED
    | OF_CONVERSATION
    | label_people(*MORE)
    | label_arrays(*MORE) - {"internalmessages.peerid"},
    "transitions.key": CONVERSATION,
    "transitions.value": WHO | WHAT | WHY,
    "log": {"planted.debug"},  # proves that lines of the lowest level are captured
}
"""Includes labels of properties that the models do not have; those never occur."""
DIGESTS = ("cobrowseSessionDigest", "roomDigest", "endpointDigest")


def mark(label: str) -> str:
    LABELS.add(label.lower())
    return f"MARK-{label}-{next(COUNT)}z"


def find_marks(sinks: Sinks) -> dict[str, set[str]]:
    """By sink, the labels of the marks in it; a sink without marks is left out. Case is folded, as in enumerations."""
    labels = {sink: set(re.findall(r"mark-([a-z.]*)", text.lower())) for sink, text in sinks.items()}
    return {sink: marks for sink, marks in labels.items() if marks}


def fill(models: dict[str, Any], kind: str, label: str, state: str = "") -> Any:
    """A value of an official type, full of marks. With `state` its states and times are valid ones instead."""
    if kind.startswith("list["):
        if label.endswith(".errors"):  # an error holds errors
            return []
        return [fill(models, kind[5:-1], label, state)]
    if kind in {"bool", "int"}:
        return kind == "bool" or 7
    if kind in {"str", "datetime"}:
        real = {"datetime": NOW_MS - HOUR_MS}.get(kind, state if label.endswith(".state") else None)
        return real if state and real else mark(label)
    owner = f"{'flat.' if label.startswith('flat.') else ''}{label.rsplit('.', 1)[-1]}"
    model = models.get("Participant" if kind.endswith("MediaParticipant") else kind)
    model = model or dict.fromkeys(("id", "name", "code", "email"), "str")
    fields = {name: fill(models, field_kind, f"{owner}.{name}", state) for name, field_kind in model.items()}
    return fields | {"joinCode": mark("join.code"), mark("unknown.key"): {mark("unknown.key"): mark("unknown.value")}}


def wrap(topic: str, body: Any) -> tuple[Any, Any, Any]:
    """A body in the three envelopes, whose own properties are marked."""
    head = {"topicName": topic.format(mark("topic")), "version": mark("envelope.version")}
    notification = head | {"eventBody": body, "metadata": {"CorrelationId": mark("metadata.id")}}
    event: dict[str, Any] = {name: mark(f"event.{name}") for name in ("id", "source", "account", "time", "resources")}
    detail = notification | {"timestamp": mark("detail.timestamp")}
    return notification, event | {"detail-type": topic.format("{id}"), "detail": detail}, body


def record(document: Any, key: str = "", at_ms: int = NOW_MS) -> Rec:
    """A record with a JSON document or raw bytes as value. The default key fits no conversation."""
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return (key or mark("record.key")).encode(), value, at_ms


def frame(value: bytes, number: int) -> bytes:
    """A value in one of the frames of relays, whose own properties are marked."""
    names = ("id", "source", "subject", "Subject", "TopicArn", "Signature", "ReceiptHandle", "Attributes")
    framed = FRAMES[number % len(FRAMES)](value)
    marks = json.dumps({name: mark(f"frame.{name}") for name in names})[1:-1].encode()
    return b"{%b,%b" % (marks, framed[1:]) if framed.startswith(b"{") else framed


def usable() -> Iterator[Rec]:
    """Every record twice, in every shape and envelope, framed the second time. Bare flat ones are ignored."""
    number = itertools.count()
    shapes = [(f"users.{{}}.conversations.{medium}", models, "flat.conversation") for medium, models in FLAT.items()]
    shapes += [(f"{owner}.{{}}.conversations", NESTED, "conversation") for owner in ("users", "routing.queues")]
    for (topic, models, label), state, envelope in itertools.product(shapes, ("", "alerting", "terminated"), range(3)):
        body = fill(models, "Conversation", label, state)
        event = record(wrap(f"v2.{topic}", body)[envelope], body["id"])
        yield from (event, (event[0], frame(event[1] or b"", next(number)), event[2]))


def break_fields(struct: type[Struct]) -> Iterator[dict[str, Any]]:
    """Objects with a mark of a wrong type in one field that the worker uses; every such field, at any depth, once."""
    hints = typing.get_type_hints(struct)
    for field in structs.fields(struct):
        name, options = field.encode_name, typing.get_args(hints[field.name])
        yield {name: {mark("wrong.mapkey"): mark("wrong.mapvalue")}}
        if str not in options:
            yield {name: mark("wrong.text")}
        listed = [kind for option in options for item in typing.get_args(option) for kind in typing.get_args(item)]
        for inner in listed or options:
            if issubclass(inner, Struct):
                yield from ({name: [broken] if listed else broken} for broken in break_fields(inner))


def unusable() -> Iterator[Rec]:
    """Records that are ignored or rejected, for every reason. A few of the hostile ones are applied."""
    for struct, topic in (
        (Participant, "v2.users.{}.conversations"),
        (FlatParticipant, "v2.users.{}.conversations.calls"),
    ):
        for person in break_fields(struct):
            yield from (record(envelope, "x") for envelope in wrap(topic, {"id": "x", "participants": [person]}))
    for name in ("id", "participants", "topicName", "eventBody", "detail", "detail-type", "timestamp"):
        for value in (mark("wrong.text"), [mark("wrong.item")], {mark("wrong.mapkey"): mark("wrong.mapvalue")}):
            for outer in ({}, {"topicName": "v2.users.u.conversations"}):
                inner = outer | {name: value}
                yield from map(record, (inner, outer | {"eventBody": inner}, outer | {"detail": inner}))
    body = fill(NESTED, "Conversation", "broken")
    text = json.dumps(wrap("v2.users.{}.conversations", body)[0]).encode()
    yield from (record(text[:end]) for end in range(1, len(text), 997))
    for raw in (pattern.replace(b"?", mark("raw.text").encode()) for pattern in HOSTILE):
        yield record(raw)
        for used in (b"purpose", b"userId", b"name"):
            yield record(b'{"id":"x","participants":[{"id":"y","%b":%b}]}' % (used, raw), "x")
    yield from (record(frame(text[:997], number)) for number in range(len(FRAMES)))
    yield record(b'{"a":' * 300 + mark("deep.value").encode())
    yield record(mark("large.value").encode() * (RECORD_BYTES_MAX // 10))
    yield from ((key, text, NOW_MS) for key in (b"\xff" + mark("record.key").encode(), None))
    nameless = [{"id": None, "name": mark("nameless.name")}]
    crowd = [{"id": "p", "calls": [{"id": mark("crowd.call"), "state": "x"} for _ in range(COMMUNICATIONS_MAX + 1)]}]
    old = {"notime.id": NOW_MS - 1, "late.id": 100 * HOUR_MS}
    for label, people in {
        "notime.id": [],
        "late.id": [],
        FAULT: [],
        "nameless.id": nameless,
        "crowd.id": crowd,
    }.items():
        body, age_ms = {"id": mark(label), "participants": people}, old.get(label, 0)
        yield record(body, body["id"], NOW_MS - age_ms)
    yield from map(record, wrap("v2.users.{}.conversations", {"participants": nameless}))
    for other in ("channel.metadata", f"v2.system.{mark('topic')}", mark("topic")):
        yield record({"topicName": other, "eventBody": {"message": mark("frame.message")}})
    yield from (record({"result": mark("reply.result"), "status": mark("reply.status")}), record(None))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment with secrets in its settings; logging is restored afterwards."""
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
    limits = {"DEAD_LETTERS_CONSECUTIVE_MAX": CONSECUTIVE_MAX, "DEAD_LETTERS_RATIO_MAX": 1}
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
    tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    # `seek_to_beginning` would not do: the answer to the default reset, which is under way by then, may undo it.
    beginning: dict[str, Any] = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, **beginning) as consumer:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for output in itertools.chain(*(await consumer.getmany(timeout_ms=100)).values()):
                headers = b"".join(name.encode() + (value or b"") for name, value in output.headers)
                parts = (output.key, output.value, headers)
                for sink, part in zip(sinks, parts, strict=True):
                    sinks[sink] += (part or b"").decode("utf-8", "replace")
    return sinks


async def query_admin(service: Service) -> Sinks:
    """The answers of the admin port, to an unknown path too."""
    sinks = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{service.admin_port}") as session:
        for path in ("metrics", "livez", "readyz", "no/such/page"):
            for method in ("GET", "POST"):
                async with session.request(method, f"/{path}") as answer:
                    sinks[f"{method} {path}"] = f"{answer.headers} {await answer.text()}"
    return sinks


def count_records(sinks: Sinks) -> dict[str, int]:
    """Records by reason, or by disposition where there is none."""
    lines = re.findall(r'records_total{disposition="(\w+)",reason="(\w*)"} (\S+)', sinks["GET metrics"])
    return {reason or disposition: int(float(count)) for disposition, reason, count in lines}


async def collect_outputs(settings: Settings, records: list[Rec]) -> Sinks:
    """Run the worker over all records, then open the breaker; returns every output except the log."""
    key, value = mark("poison.key"), mark("poison.value").encode()
    keys = (name for number in itertools.count() if partition_of(name := f"{key}{number}".encode(), PARTITIONS) == 0)
    poison: list[Rec] = [(name, value, NOW_MS) for name in itertools.islice(keys, CONSECUTIVE_MAX)]
    async with running(settings) as service:
        await write(settings, records)
        while sum(count_records(sinks := await query_admin(service)).values()) < len(records):
            await asyncio.sleep(0.1)
        await write(settings, poison)
        while "too many dead letters" not in (blocked := await query_admin(service))["GET readyz"]:
            await asyncio.sleep(0.1)
        logs.logger().debug("planted", text=mark("planted.debug"))
        input_consumer = service.worker._context.input_consumer
        sinks["offsets"] = str([await input_consumer.committed(partition) for partition in range(PARTITIONS)])
    sinks |= {f"{path}, blocked": text for path, text in blocked.items()}
    sinks |= await read(settings, settings.state_topic, "state")
    sinks |= await read(settings, settings.transitions_topic, "transitions")
    return sinks | await read(settings, settings.dead_letters_topic, "dead")


@pytest.mark.parametrize("payload", ["keep", "drop"])
async def test_every_mark_is_only_in_the_sinks_that_may_hold_it(
    payload: str, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def apply_or_fail(state: ConversationState, *rest: Any) -> conversation.Applied:
        if FAULT in state.conversation_id:
            raise ValueError(state.conversation_id)
        return apply(state, *rest)

    apply, records = conversation.apply, [*usable(), *unusable()]
    environment.setattr(conversation, "apply", apply_or_fail)
    with EmbeddedBroker() as broker:
        environment.setenv("CC_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        environment.setenv("CC_DEAD_LETTER_PAYLOAD", payload)
        s = settings_or_exit()
        s = structs.replace(s, tuning=structs.replace(s.tuning, dead_letters_window_records=100_000))
        broker.create_topics(s.topics)
        logs.configure(s)
        async with asyncio.timeout(WITHIN_S):
            sinks = await collect_outputs(s, records)
    sinks["log"] = "".join(capfd.readouterr())
    totals = count_records(sinks)
    assert sum(totals.values()) == len(records)
    assert all(totals[reason] for reason in ("applied", "unchanged", *IGNORED_REASONS, *DEAD_LETTER_REASONS)), totals
    assert totals["applied"] >= 2 * 3 * (len(FLAT) + 3)  # two envelopes of the flat shapes, three of both nested ones
    assert all(text in sinks["state.value"] for text in ('"viewable":true', *DIGESTS))
    assert "breaker.opened" in sinks["log"]
    marks = find_marks(sinks)
    if payload == "keep":  # a dead letter is the original, untouched
        assert marks.pop("dead.key") >= {"record.key", "late.id", "poison.key"}
        assert marks.pop("dead.value") >= {"wrong.mapvalue", "raw.text", "large.value", "cobrowsesessions.viewerurl"}
    assert marks == {sink: labels & LABELS for sink, labels in KEPT.items()}


def test_mark_is_found_in_any_case_and_when_truncated() -> None:
    sinks = {"log": "nothing", "metrics": mark("flat.viewerUrl").lower(), "dead.header": "MARK-ca"}
    assert find_marks(sinks) == {"metrics": {"flat.viewerurl"}, "dead.header": {"ca"}}


PEM = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"CC_DIGEST_KEY": "{}" * 9, "CC_SASL_PASWORD": "{}"}, "CC_SASL_PASWORD"),
        ({"CC_SASL_PASSWORD_FILE": "{}"}, "CC_SASL_PASSWORD_FILE: cannot read"),  # the secret, not its file
        ({"CC_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "consumer.failed"),
        ({"CC_SECURITY_PROTOCOL": "SSL", "CC_SSL_CA_FILE": PEM}, "CC_SSL_CA_FILE: cannot use the file it names"),
        (
            {"CC_SECURITY_PROTOCOL": "SSL", "CC_SSL_CERT_FILE": PEM, "CC_SSL_KEY_FILE": PEM},
            "CC_SSL_KEY_FILE: cannot use the file it names with the file it names",
        ),
    ],
)
async def test_failed_start_prints_no_secret(
    broken: dict[str, str], message: str, environment: pytest.MonkeyPatch
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
    assert message in output.decode()
    assert not find_marks({"output": output.decode()})


@pytest.mark.parametrize("command", ["check", "topics", "run"])
@pytest.mark.parametrize("name", [name for name in Settings.__struct_fields__ if name != "tuning"])
def test_secret_in_the_place_of_its_file_is_not_printed(name: str, command: str) -> None:
    secret = PEM.replace("{}", mark("secret.pasted"))
    environ = {
        "CC_BOOTSTRAP_SERVERS": None,
        "CC_BOOTSTRAP_SERVERS_FILE": "/dev/null",
        f"CC_{name.upper()}_FILE": secret,
    }
    result = CliRunner(env=environ).invoke(main, [command])
    assert result.exit_code == CONFIG
    assert f"CC_{name.upper()}_FILE: cannot read the file it names" in result.output
    assert not find_marks({"output": result.output})


def test_explanation_holds_no_more_than_state_and_transitions() -> None:
    replay, texts = Replay(Rules(communications_max=COMMUNICATIONS_MAX, record_bytes_max=RECORD_BYTES_MAX)), []
    for offset, (key, value, at_ms) in enumerate(itertools.chain(usable(), unusable())):
        consumed = Record("t", 0, offset, at_ms, key, value)
        before, outcome = replay.apply(consumed)
        explanation = explain(consumed, Rules(), before, outcome)
        texts.append(msgspec.json.encode(explanation).decode())
        texts.extend(record_lines(explanation, {}, is_consumed=True))
    kept = KEPT["state.value"] | KEPT["transitions.value"]
    ((_, labels),) = find_marks({"why": "\n".join(texts)}).items()
    assert labels <= kept
    assert labels >= (WHO | WHAT) & LABELS
