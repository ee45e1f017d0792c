"""The service's settings: one frozen value, read once from the environment and checked as a whole.

Every setting is an environment variable: `CC_` and the field's name in upper case. `CC_<NAME>_FILE` names a file to
read the value from instead, which is how secrets are mounted.
"""

import difflib
import ipaddress
import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from consumer.core.rules import Rules
from consumer.runtime.bookmark import OutputName

PREFIX: Final = "CC_"
SECRETS: Final = frozenset(("digest_key", "query_token", "sasl_password", "ssl_key_password"))
"""Settings whose values are shown nowhere."""

_RULES: Final = Rules()
_DIGEST_KEY_BYTES_MAX: Final = 64  # what BLAKE2b takes

Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Settings(Struct, frozen=True, kw_only=True):
    """Every setting with its default. Units are last in the names."""

    bootstrap_servers: Annotated[str, Meta(min_length=1, description="Kafka brokers, `host:port` separated by commas")]
    input_topic: Annotated[
        str, Meta(min_length=1, description="topic of conversation updates, keyed by conversation id")
    ] = "conversation-updates"
    state_topic: Annotated[str, Meta(min_length=1, description="compacted topic of conversation states")] = (
        "conversation-state"
    )
    transitions_topic: Annotated[str, Meta(min_length=1, description="topic of ordered transitions")] = (
        "conversation-transitions"
    )
    dead_letters_topic: Annotated[str, Meta(min_length=1, description="topic of records that could not be used")] = (
        "conversation-dead-letters"
    )
    group_id: Annotated[str, Meta(min_length=1, description="consumer group")] = "conversation-consumer"
    group_instance_id: Annotated[
        str, Meta(description="static membership id, such as the pod's name in a StatefulSet; empty for dynamic")
    ] = ""
    client_id: Annotated[str, Meta(description="client id shown to the brokers")] = "conversation-consumer"
    delivery: Annotated[
        Literal["exactly_once", "at_least_once"],
        Meta(description="`at_least_once` is for brokers without transactions, effects may repeat"),
    ] = "exactly_once"

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="how to connect to the brokers")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        Meta(description="how to authenticate with SASL"),
    ] = "SCRAM-SHA-512"
    sasl_username: Annotated[str, Meta(description="user name for SASL")] = ""
    sasl_password: Annotated[str, Meta(description="password for SASL (secret)")] = ""
    sasl_oauth_token_file: Annotated[
        str, Meta(description="file of the token for OAUTHBEARER, read anew for every connection")
    ] = ""
    ssl_ca_file: Annotated[str, Meta(description="PEM file of authorities to trust; empty for the system's")] = ""
    ssl_cert_file: Annotated[str, Meta(description="PEM file of the client certificate")] = ""
    ssl_key_file: Annotated[str, Meta(description="PEM file of the client certificate's key")] = ""
    ssl_key_password: Annotated[str, Meta(description="password of that key (secret)")] = ""

    session_timeout_ms: Annotated[Count, Meta(description="silence after which the group gives a worker up")] = 45_000
    heartbeat_interval_ms: Annotated[Count, Meta(description="time between heartbeats to the group")] = 5_000
    rebalance_timeout_ms: Annotated[Count, Meta(description="time a worker has to join a rebalance")] = 60_000
    max_poll_interval_ms: Annotated[
        Count, Meta(description="longest time without progress in which a worker stays in the group")
    ] = 300_000
    transaction_timeout_ms: Annotated[Count, Meta(description="age at which the broker aborts a transaction")] = 30_000
    request_timeout_ms: Annotated[Count, Meta(description="longest wait for a broker's answer")] = 15_000
    commit_timeout_s: Annotated[float, Meta(gt=0, description="longest wait for a whole commit")] = 20.0
    commit_interval_ms: Annotated[
        int,
        Meta(
            ge=0,
            description=(
                "time between commits of a lane; 0 chooses by the lanes owned, 100 ms and more; "
                "a second or more while it catches up"
            ),
        ),
    ] = 0
    commit_records_max: Annotated[Count, Meta(description="records that make a commit due at once")] = 5_000
    commit_bytes_max: Annotated[Count, Meta(description="bytes of effects that make a commit due at once")] = 16_777_216
    fetch_records_max: Annotated[Count, Meta(description="records taken from the fetch buffer at a time")] = 500
    partition_fetch_bytes_max: Annotated[Count, Meta(description="bytes fetched per partition and request")] = 4_194_304
    slice_ms_max: Annotated[float, Meta(gt=0, description="work done before the event loop gets its turn")] = 2.5
    batch_bytes_max: Annotated[
        Count, Meta(description="size of a produced batch; below `max.message.bytes` of every output topic")
    ] = 900_000
    compression: Annotated[
        Literal["none", "snappy", "zstd"], Meta(description="codec of the output topics' batches")
    ] = "zstd"
    retry_s_max: Annotated[
        float,
        Meta(
            gt=0, description="how long a lane tries to recover before the process ends; longer while other lanes move"
        ),
    ] = 300.0
    drain_s: Annotated[float, Meta(gt=0, description="time to finish after SIGTERM")] = 20.0

    key_mismatch: Annotated[
        Literal["dead_letter", "apply"],
        Meta(
            description="what becomes of a record whose key is not its conversation id; `apply` only with one partition"
        ),
    ] = "dead_letter"
    dead_letter_payload: Annotated[
        Literal["keep", "drop"], Meta(description="whether dead letters carry the original bytes")
    ] = "keep"
    dead_letter_bytes_max: Annotated[
        Count,
        Meta(description="largest key and value that a dead letter carries; of larger ones only the headers tell"),
    ] = 8_388_608
    dead_letters_ratio_max: Annotated[
        float,
        Meta(gt=0, le=1, description="share of dead letters in the window that opens the breaker, by conversation"),
    ] = 0.5
    dead_letters_window_records: Annotated[Count, Meta(description="records over which that share is taken")] = 1_000
    dead_letters_consecutive_max: Annotated[
        Count,
        Meta(description="conversations with nothing but dead letters in a row that open the breaker"),
    ] = 200

    future_skew_max_s: Annotated[
        int, Meta(ge=0, description="how far a time may lie after its snapshot before it counts as a broken clock")
    ] = _RULES.future_skew_max_s
    park_cycles_max: Annotated[int, Meta(ge=2, description="park cycles kept per communication")] = (
        _RULES.park_cycles_max
    )
    digest_key: Annotated[
        str, Meta(description="key of the digests of session and room ids, at most 64 bytes (secret)")
    ] = ""
    record_bytes_max: Annotated[Count, Meta(description="largest record value that is read")] = _RULES.record_bytes_max
    communications_max: Annotated[Count, Meta(description="communications kept per conversation")] = (
        _RULES.communications_max
    )
    state_bytes_max: Annotated[Count, Meta(description="largest state of one conversation")] = _RULES.state_bytes_max
    retention_ended_s: Annotated[Count, Meta(description="how long an ended conversation is kept")] = (
        _RULES.retention_ended_s
    )
    retention_idle_s: Annotated[Count, Meta(description="how long any other is kept without news")] = (
        _RULES.retention_idle_s
    )

    admin_host: Annotated[str, Meta(min_length=1, description="address of probes and metrics")] = "127.0.0.1"
    admin_port: Annotated[Port, Meta(description="port of probes and metrics; 0 takes a free one")] = 8080
    query_host: Annotated[
        str, Meta(min_length=1, description="address of lookups of conversations; beyond loopback only with a token")
    ] = "127.0.0.1"
    query_port: Annotated[Port, Meta(description="port of lookups of conversations; 0 takes a free one")] = 8081
    query_token: Annotated[
        str,
        Meta(
            pattern=r"\A([A-Za-z0-9._~+/=-]{16,256})?\Z",
            description="bearer token of the query port: 16 to 256 letters, digits and `-._~+/=` (secret)",
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"], Meta(description="`auto` is console on a terminal, else JSON")
    ] = "auto"

    @property
    def topics(self) -> tuple[str, str, str, str]:
        """The names of the four topics, the input's first."""
        return self.input_topic, self.state_topic, self.transitions_topic, self.dead_letters_topic

    @property
    def outputs(self) -> dict[OutputName, str]:
        """The names of the topics that a lane writes to."""
        return {
            "state": self.state_topic,
            "transitions": self.transitions_topic,
            "dead_letters": self.dead_letters_topic,
        }

    def rules(self) -> Rules:
        """The settings that the core depends on."""
        return Rules(
            future_skew_max_s=self.future_skew_max_s,
            park_cycles_max=self.park_cycles_max,
            key_mismatch=self.key_mismatch,
            digest_key=self.digest_key.encode("utf-8", "surrogateescape"),
            record_bytes_max=self.record_bytes_max,
            communications_max=self.communications_max,
            state_bytes_max=self.state_bytes_max,
            retention_ended_s=self.retention_ended_s,
            retention_idle_s=self.retention_idle_s,
        )


class SettingsError(Exception):
    """Settings that cannot be used. `problems` has a sentence for each, with names and without secrets."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def parse(environ: Mapping[str, str], read_file: Callable[[str], str]) -> Settings:
    """Settings from the environment. `read_file` gives a file's text and may raise OSError or UnicodeDecodeError.

    Raises SettingsError with every problem found, not only the first.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    given: set[str] = set()
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    for variable, raw in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name, is_file = _named(variable, fields.keys())
        if name is None:
            meant = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), fields, n=1)
            todo = f"is {PREFIX}{meant[0].upper()} meant?" if meant else "take it away"
            problems.append(f"{variable} is no setting of this version: {todo}")
            continue
        given.add(name)
        try:
            text = read_file(raw).strip() if is_file else raw
        except (OSError, UnicodeDecodeError) as error:
            shown = "the file it names" if name in SECRETS else repr(raw)  # it may be the secret
            problems.append(f"{variable}: cannot read {shown}: {type(error).__name__}")
            continue
        if name in values:
            problems.append(f"{PREFIX}{name.upper()} and {PREFIX}{name.upper()}_FILE are both set: set one")
            continue
        try:
            values[name] = msgspec.convert(text, fields[name].type, strict=False)
        except msgspec.ValidationError:
            shown = "" if name in SECRETS else f", not {text!r}"
            problems.append(f"{PREFIX}{name.upper()}: expected {_wanted(fields[name].type)}{shown}")
    problems.extend(
        f"{PREFIX}{name.upper()} is not set: {_description(field.type)}"
        for name, field in fields.items()
        if field.required and name not in given
    )
    if problems:
        raise SettingsError(problems)
    settings = Settings(**values)
    problems = conflicts(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _named(variable: str, known: Collection[str]) -> tuple[str | None, bool]:
    """The setting that a variable gives, None if it gives none; and whether by the name of a file."""
    name = variable.removeprefix(PREFIX).lower()
    if name in known:
        return name, False
    name, is_file = name.removesuffix("_file"), name.endswith("_file")
    return (name, True) if is_file and name in known else (None, False)


def conflicts(settings: Settings) -> list[str]:
    """Combinations that would break a promise, a sentence each that names both settings."""
    found = (*_conflicts_of_times(settings), *_conflicts_of_sizes(settings), *_conflicts_of_access(settings))
    return [problem for broken, problem in found if broken]


def _conflicts_of_times(s: Settings) -> list[tuple[bool, str]]:
    return [
        (s.drain_s * 1_000 >= s.session_timeout_ms, "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS"),
        (
            s.transaction_timeout_ms >= s.session_timeout_ms,
            (
                "CC_TRANSACTION_TIMEOUT_MS must be below CC_SESSION_TIMEOUT_MS: a dead worker's transaction has to be "
                "over when its partitions move"
            ),
        ),
        (
            s.heartbeat_interval_ms * 3 > s.session_timeout_ms,
            "CC_HEARTBEAT_INTERVAL_MS must be at most a third of CC_SESSION_TIMEOUT_MS",
        ),
        (
            s.max_poll_interval_ms < s.session_timeout_ms,
            "CC_MAX_POLL_INTERVAL_MS must not be below CC_SESSION_TIMEOUT_MS",
        ),
        (
            s.commit_timeout_s * 1_000 >= s.transaction_timeout_ms,
            "CC_COMMIT_TIMEOUT_S must be shorter than CC_TRANSACTION_TIMEOUT_MS",
        ),
        (
            s.commit_timeout_s * 1_000 >= s.rebalance_timeout_ms,
            "CC_COMMIT_TIMEOUT_S must be shorter than CC_REBALANCE_TIMEOUT_MS: a revoke waits for a commit in flight",
        ),
        (
            s.commit_interval_ms >= s.transaction_timeout_ms,
            "CC_COMMIT_INTERVAL_MS must be below CC_TRANSACTION_TIMEOUT_MS",
        ),
        (
            s.retention_idle_s < s.retention_ended_s,
            "CC_RETENTION_IDLE_S must not be below CC_RETENTION_ENDED_S",
        ),
        (not math.isfinite(s.retry_s_max), "CC_RETRY_S_MAX must be finite: every retry has a bound"),
        (not math.isfinite(s.slice_ms_max), "CC_SLICE_MS_MAX must be finite: the event loop has to get its turn"),
    ]


def _conflicts_of_sizes(s: Settings) -> list[tuple[bool, str]]:
    """Also of names."""
    return [
        (
            s.state_bytes_max >= s.batch_bytes_max,
            "CC_STATE_BYTES_MAX must be below CC_BATCH_BYTES_MAX: a state has to fit a batch",
        ),
        (
            s.dead_letter_bytes_max < s.batch_bytes_max,
            "CC_DEAD_LETTER_BYTES_MAX must not be below CC_BATCH_BYTES_MAX: small dead letters share a batch",
        ),
        (
            len(set(s.topics)) < len(s.topics),
            "CC_INPUT_TOPIC, CC_STATE_TOPIC, CC_TRANSITIONS_TOPIC and CC_DEAD_LETTERS_TOPIC must differ",
        ),
        (
            len(s.digest_key.encode("utf-8", "surrogateescape")) > _DIGEST_KEY_BYTES_MAX,
            f"CC_DIGEST_KEY must be at most {_DIGEST_KEY_BYTES_MAX} bytes of UTF-8",
        ),
    ]


def _conflicts_of_access(s: Settings) -> list[tuple[bool, str]]:
    has_token = s.security_protocol.startswith("SASL") and s.sasl_mechanism == "OAUTHBEARER"
    has_password = s.security_protocol.startswith("SASL") and not has_token
    return [
        (
            has_password and not (s.sasl_username and s.sasl_password),
            "CC_SECURITY_PROTOCOL needs CC_SASL_USERNAME and CC_SASL_PASSWORD (or CC_SASL_PASSWORD_FILE)",
        ),
        (
            has_token and not s.sasl_oauth_token_file,
            "CC_SASL_MECHANISM=OAUTHBEARER needs CC_SASL_OAUTH_TOKEN_FILE",
        ),
        (
            bool(s.ssl_cert_file) != bool(s.ssl_key_file),
            "CC_SSL_CERT_FILE and CC_SSL_KEY_FILE go together",
        ),
        (
            not is_loopback(s.query_host) and not s.query_token,
            (
                "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE): the query port tells of "
                "customers' conversations"
            ),
        ),
        (
            s.admin_port == s.query_port != 0,
            "CC_ADMIN_PORT and CC_QUERY_PORT must differ: the scrape port serves no customer data",
        ),
    ]


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from the same machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def described() -> list[tuple[str, str, str]]:
    """Every setting as (variable, default, description), for the documentation and its test."""
    return [
        (
            f"{PREFIX}{field.name.upper()}",
            "(required)" if field.required else str(field.default),
            _description(field.type),
        )
        for field in msgspec.structs.fields(Settings)
    ]


def _description(annotation: Any) -> str:
    """What the setting is, and the values it can have where they are few."""
    told = next((meta.description for meta in annotation.__metadata__[::-1] if meta.description), "")
    choices = _choices(annotation)
    return f"{told} (one of {', '.join(f'`{choice}`' for choice in choices)})" if choices else told


def _wanted(annotation: Any) -> str:
    """What a value has to be, in words."""
    limits = {
        name: value
        for meta in annotation.__metadata__
        for name in ("ge", "gt", "le", "pattern")
        if (value := getattr(meta, name)) is not None
    }
    if choices := _choices(annotation):
        return f"one of {', '.join(choices)}"
    if "pattern" in limits:
        return _description(annotation).partition(": ")[2].removesuffix(" (secret)")
    if annotation.__origin__ is str:
        return "at least one character"
    kind = "a whole number" if annotation.__origin__ is int else "a number"
    words = {"ge": "from", "gt": "above", "le": "up to"}
    return " ".join([kind, *(f"{words[name]} {value}" for name, value in limits.items())])


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation.__origin__) if get_origin(annotation.__origin__) is Literal else ()
