"""Settings from the environment, read once and checked as a whole.

Every setting is an environment variable: `CC_` and the field's name in upper case. `CC_<NAME>_FILE` names a file to
read the value from instead, which is how secrets are mounted.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec

from consumer import secret_files
from consumer.settings import SECRET_FILES, SECRETS, Settings, is_loopback, is_token_endpoint, parse_address

PREFIX: Final = "CC_"
_DIGEST_KEY_BYTES_MAX: Final = 64  # the limit of BLAKE2b
_SIMILARITY_MIN: Final = 0.8
"""From this similarity to a setting on an unknown name is a slip. Less is a coincidence, or a setting that is gone."""


class SettingsError(Exception):
    """Settings that cannot be used. `problems` has a sentence for every mistake, with names and without secrets."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def parse(environ: Mapping[str, str], read_file: Callable[[str], str]) -> Settings:
    """Settings from the environment. `read_file` returns a file's text and may raise OSError or UnicodeDecodeError.

    No problem shows what a variable that names a file holds, unless there is such a file.

    Raises SettingsError with every problem found, not only the first.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    given: set[str] = set()
    fields = {field.name: field for field in _variables()}
    for variable, raw in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name, is_file = _resolve(variable, fields.keys())
        if name is None:
            similar = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), fields, 1, _SIMILARITY_MIN)
            remedy = f"is {PREFIX}{similar[0].upper()} meant?" if similar else "remove it"
            problems.append(f"{variable} is not a setting of this version: {remedy}")
            continue
        given.add(name)
        try:
            text = read_file(raw).strip() if is_file else raw
        except (OSError, UnicodeDecodeError) as error:
            named, reason = secret_files.name_file(raw), secret_files.describe_error(error)
            problems.append(f"{variable}: cannot read {named}: {reason}")
            continue
        if name in values:
            problems.append(f"{PREFIX}{name.upper()} and {PREFIX}{name.upper()}_FILE are both set: set one")
            continue
        text = next((choice for choice in _choices(fields[name].type) if choice.lower() == text.lower()), text)
        try:
            values[name] = msgspec.convert(text, fields[name].type, strict=False)
        except msgspec.ValidationError:
            is_hidden = is_file or name in SECRETS  # the wrong file may hold any secret
            actual = "" if is_hidden else f", not {text!r}"
            problems.append(f"{PREFIX}{name.upper()}: expected {_describe_limits(fields[name].type)}{actual}")
    problems.extend(
        f"{PREFIX}{name.upper()} is not set: {_describe(field.type)}"
        for name, field in fields.items()
        if field.required and name not in given
    )
    unusable = {name for name, field in fields.items() if name in given or field.required} - values.keys()
    stand_ins: dict[str, Any] = {name: "" for name in unusable if fields[name].required}
    settings = Settings(**values, **stand_ins)
    # A value that stands for an unusable one shows no conflict.
    problems.extend(problem for problem in conflicts(settings) if not unusable & _find_names(problem))
    if problems:
        raise SettingsError(problems)
    return settings


def _find_names(problem: str) -> set[str]:
    """The settings whose variables a sentence names."""
    return {name.lower() for name in re.findall(rf"{PREFIX}([A-Z0-9_]+)", problem)}


def find_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The files of secrets that the environment names, by variable."""
    names = {f"{name}_file" for name in SECRETS} | SECRET_FILES
    variables = [f"{PREFIX}{name.upper()}" for name in sorted(names)]
    return {variable: environ[variable] for variable in variables if environ.get(variable)}


def _resolve(variable: str, known: Collection[str]) -> tuple[str | None, bool]:
    """The name of the setting in a variable, None if it is unknown, and whether the variable names a file."""
    name = variable.removeprefix(PREFIX).lower()
    if name in known:
        return name, False
    name, is_file = name.removesuffix("_file"), name.endswith("_file")
    return (name, True) if is_file and name in known else (None, False)


def conflicts(settings: Settings) -> list[str]:
    """Combinations that would break a guarantee: a sentence for every one, with the names of both settings."""
    rules = (*_conflicts_of_times(settings), *_conflicts_of_sizes(settings), *_conflicts_of_access(settings))
    return [problem for is_broken, problem in rules if is_broken]


def _conflicts_of_times(s: Settings) -> list[tuple[bool, str]]:
    transaction = f"the transaction timeout, {s.tuning.commits_per_transaction:g} times CC_COMMIT_TIMEOUT_S"
    return [
        (s.drain_s * 1_000 >= s.session_timeout_ms, "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS"),
        (
            s.transaction_timeout_ms >= s.session_timeout_ms,
            (
                f"{transaction}, must be below CC_SESSION_TIMEOUT_MS: a dead worker's transaction has to be over "
                "before its partitions move"
            ),
        ),
        (
            s.commit_interval_ms >= s.transaction_timeout_ms,
            f"CC_COMMIT_INTERVAL_MS must be below {transaction}",
        ),
        (
            s.retention_idle_s < s.retention_ended_s,
            "CC_RETENTION_IDLE_S must not be below CC_RETENTION_ENDED_S",
        ),
    ]


def _conflicts_of_sizes(s: Settings) -> list[tuple[bool, str]]:
    """Of sizes, and of the topics' names."""
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
            s.decompressed_bytes_max <= max(s.record_bytes_max, s.batch_bytes_max, s.dead_letter_bytes_max),
            (
                "CC_DECOMPRESSED_BYTES_MAX must be above CC_RECORD_BYTES_MAX, CC_BATCH_BYTES_MAX and "
                "CC_DEAD_LETTER_BYTES_MAX: a batch holds what they allow, and more"
            ),
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
    fetches_token = has_token and bool(s.sasl_oauth_token_endpoint)
    has_password = s.security_protocol.startswith("SASL") and not has_token
    advertised = parse_address(s.query_advertised or "localhost")
    shows_credentials = s.security_protocol == "SASL_PLAINTEXT" and s.sasl_mechanism in {"PLAIN", "OAUTHBEARER"}
    return [
        (
            has_password and not (s.sasl_username and s.sasl_password),
            "CC_SECURITY_PROTOCOL needs CC_SASL_USERNAME and CC_SASL_PASSWORD (or CC_SASL_PASSWORD_FILE)",
        ),
        (
            has_token and bool(s.sasl_oauth_token_file) == bool(s.sasl_oauth_token_endpoint),
            "CC_SASL_MECHANISM=OAUTHBEARER needs either CC_SASL_OAUTH_TOKEN_FILE or CC_SASL_OAUTH_TOKEN_ENDPOINT",
        ),
        (
            fetches_token and not (s.sasl_oauth_client_id and s.sasl_oauth_client_secret_file),
            "CC_SASL_OAUTH_TOKEN_ENDPOINT needs CC_SASL_OAUTH_CLIENT_ID and CC_SASL_OAUTH_CLIENT_SECRET_FILE",
        ),
        (
            fetches_token and not is_token_endpoint(s.sasl_oauth_token_endpoint),
            (
                "CC_SASL_OAUTH_TOKEN_ENDPOINT is no `https://` URL, or has a user name in it; `http://` is for "
                "loopback only, for the client's secret is sent there"
            ),
        ),
        (
            shows_credentials and s.allow_cleartext_credentials == "no",
            (
                "CC_SASL_MECHANISM sends the password or the token itself, and CC_SECURITY_PROTOCOL=SASL_PLAINTEXT "
                "everything in clear text: use SASL_SSL, or set CC_ALLOW_CLEARTEXT_CREDENTIALS=yes where no other "
                "host can listen"
            ),
        ),
        (
            bool(s.ssl_cert_file) != bool(s.ssl_key_file),
            "CC_SSL_CERT_FILE and CC_SSL_KEY_FILE go together",
        ),
        (
            s.query_port != "off" and not is_loopback(s.query_host) and not s.query_token,
            (
                "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE): the query port serves "
                "customers' conversations"
            ),
        ),
        (
            advertised is None,
            "CC_QUERY_ADVERTISED is no address: a host, `host:port`, or `[IPv6 address]:port`",
        ),
        (
            bool(s.query_advertised) and s.query_port == "off",
            "CC_QUERY_ADVERTISED needs a query port, and CC_QUERY_PORT is off",
        ),
        (
            advertised is not None and not is_loopback(advertised[0]) and not s.query_token,
            (
                "CC_QUERY_ADVERTISED beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE), with which workers "
                "sign what they ask each other"
            ),
        ),
        (
            s.admin_port == s.query_port != 0,
            "CC_ADMIN_PORT and CC_QUERY_PORT must differ: the scrape port serves no customer data",
        ),
        (
            s.query_audit == "on" and s.log_level not in {"debug", "info"},
            "CC_QUERY_AUDIT=on needs CC_LOG_LEVEL info or debug: its lines have the level info",
        ),
    ]


def describe_all() -> list[tuple[str, str, str]]:
    """Every setting as (variable, default, description), for the documentation and its test."""
    return [
        (
            f"{PREFIX}{field.name.upper()}",
            "(required)" if field.required else str(field.default),
            _describe(field.type),
        )
        for field in _variables()
    ]


def _variables() -> list[msgspec.structs.FieldInfo]:
    """The settings that come from the environment."""
    return [field for field in msgspec.structs.fields(Settings) if field.name != "tuning"]


def _describe(annotation: Any) -> str:
    """What the setting is, with its values if these are few."""
    description = next((meta.description for meta in annotation.__metadata__[::-1] if meta.description), "")
    choices = _choices(annotation)
    return f"{description} (one of {', '.join(f'`{choice}`' for choice in choices)})" if choices else description


def _describe_limits(annotation: Any) -> str:
    """What a value has to be, in words."""
    if get_origin(annotation.__origin__) is Union:
        number, word = get_args(annotation.__origin__)
        return f"{_describe_limits(number)}, or {get_args(word)[0]}"
    limits = {
        name: value
        for meta in annotation.__metadata__
        for name in ("ge", "gt", "le", "pattern")
        if (value := getattr(meta, name)) is not None
    }
    if choices := _choices(annotation):
        return f"one of {', '.join(choices)}"
    if "pattern" in limits:
        return _describe(annotation).partition(": ")[2].removesuffix(" (secret)")
    if annotation.__origin__ is str:
        return "at least one character"
    kind = "a whole number" if annotation.__origin__ is int else "a number"
    words = {"ge": "from", "gt": "above", "le": "up to"}
    return " ".join([kind, *(f"{words[name]} {value}" for name, value in limits.items())])


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation.__origin__) if get_origin(annotation.__origin__) is Literal else ()
