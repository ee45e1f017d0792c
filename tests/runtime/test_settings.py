"""Settings from the environment: each of them, the files of secrets, every limit and every conflict."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from consumer.core.rules import Rules
from consumer.runtime.settings import SECRETS, Settings, SettingsError, conflicts, described, parse
from tests.runtime.scenes import settings_of

SECRET = "mark-of-a-secret"
DEFAULTS = settings_of()
NAMES = tuple(field.name for field in msgspec.structs.fields(Settings))

SET: dict[str, tuple[str, object]] = {
    "bootstrap_servers": ("one:1,two:2", "one:1,two:2"),
    "input_topic": ("in", "in"),
    "state_topic": ("states", "states"),
    "transitions_topic": ("changes", "changes"),
    "dead_letters_topic": ("dead", "dead"),
    "group_id": ("readers", "readers"),
    "group_instance_id": ("pod-1", "pod-1"),
    "client_id": ("pod-2", "pod-2"),
    "delivery": ("at_least_once", "at_least_once"),
    "security_protocol": ("SASL_SSL", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "PLAIN"),
    "sasl_username": ("me", "me"),
    "sasl_password": (SECRET, SECRET),
    "sasl_oauth_token_file": ("/token", "/token"),
    "ssl_ca_file": ("/ca", "/ca"),
    "ssl_cert_file": ("/cert", "/cert"),
    "ssl_key_file": ("/key", "/key"),
    "ssl_key_password": (SECRET, SECRET),
    "session_timeout_ms": ("45001", 45_001),
    "heartbeat_interval_ms": ("5001", 5_001),
    "rebalance_timeout_ms": ("60001", 60_001),
    "max_poll_interval_ms": ("300001", 300_001),
    "transaction_timeout_ms": ("30001", 30_001),
    "request_timeout_ms": ("15001", 15_001),
    "commit_timeout_s": ("20.5", 20.5),
    "commit_interval_ms": ("1", 1),
    "commit_records_max": ("5001", 5_001),
    "commit_bytes_max": ("16777217", 16_777_217),
    "fetch_records_max": ("501", 501),
    "partition_fetch_bytes_max": ("4194305", 4_194_305),
    "slice_ms_max": ("3", 3.0),
    "batch_bytes_max": ("900001", 900_001),
    "dead_letter_bytes_max": ("8388609", 8_388_609),
    "compression": ("none", "none"),
    "retry_s_max": ("301", 301.0),
    "drain_s": ("21", 21.0),
    "key_mismatch": ("apply", "apply"),
    "dead_letter_payload": ("drop", "drop"),
    "dead_letters_ratio_max": ("0.25", 0.25),
    "dead_letters_window_records": ("1001", 1_001),
    "dead_letters_consecutive_max": ("201", 201),
    "future_skew_max_s": ("301", 301),
    "park_cycles_max": ("33", 33),
    "digest_key": (SECRET, SECRET),
    "record_bytes_max": ("4194305", 4_194_305),
    "communications_max": ("2001", 2_001),
    "state_bytes_max": ("524289", 524_289),
    "retention_ended_s": ("259201", 259_201),
    "retention_idle_s": ("3024001", 3_024_001),
    "admin_host": ("0.0.0.0", "0.0.0.0"),
    "admin_port": ("8082", 8_082),
    "query_host": ("::1", "::1"),
    "query_port": ("8083", 8_083),
    "query_token": (SECRET, SECRET),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
}
"""Every setting with a text that is not its default, and what that comes to."""

COUNTS = (
    "session_timeout_ms",
    "heartbeat_interval_ms",
    "rebalance_timeout_ms",
    "max_poll_interval_ms",
    "transaction_timeout_ms",
    "request_timeout_ms",
    "commit_records_max",
    "commit_bytes_max",
    "fetch_records_max",
    "partition_fetch_bytes_max",
    "batch_bytes_max",
    "dead_letter_bytes_max",
    "dead_letters_window_records",
    "dead_letters_consecutive_max",
    "record_bytes_max",
    "communications_max",
    "state_bytes_max",
    "retention_ended_s",
    "retention_idle_s",
)
LIMITS = [
    *((name, "1", "0") for name in COUNTS),
    ("bootstrap_servers", "b", ""),
    ("group_id", "g", ""),
    *((f"{topic}_topic", "t", "") for topic in ("input", "state", "transitions", "dead_letters")),
    ("commit_timeout_s", "0.001", "0"),
    ("slice_ms_max", "0.001", "0"),
    ("retry_s_max", "0.001", "0"),
    ("drain_s", "0.001", "0"),
    ("dead_letters_ratio_max", "0.001", "0"),
    ("dead_letters_ratio_max", "1", "1.001"),
    ("commit_interval_ms", "0", "-1"),
    ("future_skew_max_s", "0", "-1"),
    ("park_cycles_max", "2", "1"),
    ("admin_port", "0", "-1"),
    ("admin_port", "65535", "65536"),
    ("admin_host", "h", ""),
    ("query_host", "::1", ""),
    ("query_port", "0", "-1"),
    ("query_port", "65535", "65536"),
    ("query_token", "t" * 16, "t" * 15),
    ("query_token", "t" * 256, "t" * 257),
    ("query_token", "-._~+/=0aZ" * 2, "with some space in it"),
    ("query_token", "", "ends-with-a-newline\n"),
]

CHOICES = {
    "delivery": ("exactly_once", "at_least_once"),
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"),
    "compression": ("none", "snappy", "zstd"),
    "key_mismatch": ("dead_letter", "apply"),
    "dead_letter_payload": ("keep", "drop"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("auto", "json", "console"),
}

Changed = dict[str, Any]
CONFLICTS: list[tuple[Changed, Changed, str]] = [
    (
        {"session_timeout_ms": 30_001, "drain_s": 30.0},
        {"session_timeout_ms": 30_001, "drain_s": 30.001},
        "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"transaction_timeout_ms": 44_999},
        {"transaction_timeout_ms": 45_000},
        "CC_TRANSACTION_TIMEOUT_MS must be below CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"heartbeat_interval_ms": 15_000},
        {"heartbeat_interval_ms": 15_001},
        "CC_HEARTBEAT_INTERVAL_MS must be at most a third of CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"max_poll_interval_ms": 45_000},
        {"max_poll_interval_ms": 44_999},
        "CC_MAX_POLL_INTERVAL_MS must not be below CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"commit_timeout_s": 29.999},
        {"commit_timeout_s": 30.0},
        "CC_COMMIT_TIMEOUT_S must be shorter than CC_TRANSACTION_TIMEOUT_MS",
    ),
    (
        {"rebalance_timeout_ms": 20_001},
        {"rebalance_timeout_ms": 20_000},
        "CC_COMMIT_TIMEOUT_S must be shorter than CC_REBALANCE_TIMEOUT_MS",
    ),
    (
        {"commit_interval_ms": 29_999},
        {"commit_interval_ms": 30_000},
        "CC_COMMIT_INTERVAL_MS must be below CC_TRANSACTION_TIMEOUT_MS",
    ),
    (
        {"dead_letter_bytes_max": 900_000},
        {"dead_letter_bytes_max": 899_999},
        "CC_DEAD_LETTER_BYTES_MAX must not be below CC_BATCH_BYTES_MAX",
    ),
    (
        {"batch_bytes_max": 524_289},
        {"batch_bytes_max": 524_288},
        "CC_STATE_BYTES_MAX must be below CC_BATCH_BYTES_MAX",
    ),
    (
        {"retention_idle_s": 259_200},
        {"retention_idle_s": 259_199},
        "CC_RETENTION_IDLE_S must not be below CC_RETENTION_ENDED_S",
    ),
    ({"digest_key": "k" * 64}, {"digest_key": "k" * 65}, "CC_DIGEST_KEY must be at most 64 bytes"),
    ({"digest_key": "\u00e9" * 32}, {"digest_key": "\u00e9" * 32 + "k"}, "CC_DIGEST_KEY must be at most 64 bytes"),
    ({"retry_s_max": 1e300}, {"retry_s_max": float("inf")}, "CC_RETRY_S_MAX must be finite"),
    ({"slice_ms_max": 1e300}, {"slice_ms_max": float("inf")}, "CC_SLICE_MS_MAX must be finite"),
    *(
        (
            {name: "another"},
            {name: DEFAULTS.input_topic if name != "input_topic" else DEFAULTS.state_topic},
            "CC_INPUT_TOPIC, CC_STATE_TOPIC, CC_TRANSITIONS_TOPIC and CC_DEAD_LETTERS_TOPIC must differ",
        )
        for name in ("input_topic", "state_topic", "transitions_topic", "dead_letters_topic")
    ),
    *(
        (
            {"security_protocol": protocol, "sasl_username": "u", "sasl_password": "p"},
            {"security_protocol": protocol} | half,
            "CC_SECURITY_PROTOCOL needs CC_SASL_USERNAME and CC_SASL_PASSWORD",
        )
        for protocol in ("SASL_PLAINTEXT", "SASL_SSL")
        for half in ({}, {"sasl_username": "u"}, {"sasl_password": "p"})
    ),
    *(
        (
            {"security_protocol": protocol, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/t"},
            {
                "security_protocol": protocol,
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_username": "u",
                "sasl_password": "p",
            },
            "CC_SASL_MECHANISM=OAUTHBEARER needs CC_SASL_OAUTH_TOKEN_FILE",
        )
        for protocol in ("SASL_PLAINTEXT", "SASL_SSL")
    ),
    *(
        (
            {"ssl_cert_file": "/c", "ssl_key_file": "/k"},
            {name: "/x"},
            "CC_SSL_CERT_FILE and CC_SSL_KEY_FILE go together",
        )
        for name in ("ssl_cert_file", "ssl_key_file")
    ),
    (
        {"query_host": "127.8.0.1"},
        {"query_host": "0.0.0.0"},
        "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE)",
    ),
    (
        {"query_host": "::", "query_token": SECRET},
        {"query_host": "::", "query_token": ""},
        "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE)",
    ),
    (
        {"query_host": "localhost"},
        {"query_host": "localhost.example"},
        "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE)",
    ),
    (
        {"admin_port": 8_082, "query_port": 8_083},
        {"admin_port": 8_083, "query_port": 8_083},
        "CC_ADMIN_PORT and CC_QUERY_PORT must differ",
    ),
    (
        {"admin_port": 0, "query_port": 0},
        {"admin_port": 8_081},
        "CC_ADMIN_PORT and CC_QUERY_PORT must differ",
    ),
]


def no_file(path: str) -> str:
    raise AssertionError(f"{path} was read")


def problems(environ: Mapping[str, str]) -> list[str]:
    try:
        parse({"CC_BOOTSTRAP_SERVERS": "b:1", **environ}, no_file)
    except SettingsError as error:
        return error.problems
    return []


def test_the_tables_of_this_test_name_every_setting() -> None:
    assert set(SET) == set(NAMES)
    limited = {
        each.name
        for each in msgspec.structs.fields(Settings)
        if any(word in str(each.type) for word in ("ge=", "gt=", "le=", "lt=", "length=", "pattern="))
    }
    assert {name for name, _, _ in LIMITS} == limited
    assert set(CHOICES) == {each.name for each in msgspec.structs.fields(Settings) if "Literal" in str(each.type)}


def test_every_setting_is_read_from_its_variable() -> None:
    settings = parse({f"CC_{name.upper()}": text for name, (text, _) in SET.items()}, no_file)
    found = msgspec.structs.asdict(settings)
    assert found == {name: value for name, (_, value) in SET.items()}
    assert {name: type(value) for name, value in found.items()} == {name: type(SET[name][1]) for name in SET}
    assert [name for name in NAMES if found[name] == getattr(DEFAULTS, name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_can_be_read_from_a_file(name: str) -> None:
    environ = {f"CC_{each.upper()}": text for each, (text, _) in SET.items() if each != name}
    settings = parse(environ | {f"CC_{name.upper()}_FILE": "/mnt/x"}, {"/mnt/x": f" {SET[name][0]}\n"}.__getitem__)
    assert getattr(settings, name) == SET[name][1]


def test_only_the_brokers_have_to_be_set_and_other_variables_are_none_of_ours() -> None:
    assert parse({"CC_BOOTSTRAP_SERVERS": "b:1", "PATH": "/bin", "XCC_INPUT_TOPIC": "x", "CCC": "1"}, no_file) == (
        DEFAULTS
    )
    with pytest.raises(SettingsError, match=r"^CC_BOOTSTRAP_SERVERS is not set: Kafka brokers, `host:port`"):
        parse({}, no_file)


def test_a_secret_that_is_set_twice_is_a_problem() -> None:
    environ = {"CC_BOOTSTRAP_SERVERS": "b:1", "CC_SASL_PASSWORD": SECRET, "CC_SASL_PASSWORD_FILE": "/mnt/x"}
    for ordered in (environ, dict(reversed(environ.items()))):
        with pytest.raises(SettingsError) as caught:
            parse(ordered, lambda _: SECRET)
        assert caught.value.problems == ["CC_SASL_PASSWORD and CC_SASL_PASSWORD_FILE are both set: set one"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, SECRET), PermissionError(13, SECRET), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "")]
)
@pytest.mark.parametrize(
    ("variable", "path", "named"),
    [("CC_GROUP_ID_FILE", "/mnt/x", "'/mnt/x'"), ("CC_DIGEST_KEY_FILE", SECRET, "the file it names")],
)
def test_a_file_that_cannot_be_read_is_a_problem(variable: str, path: str, named: str, error: Exception) -> None:
    def read(_: str) -> str:
        raise error

    with pytest.raises(SettingsError) as caught:
        parse({"CC_BOOTSTRAP_SERVERS": "b:1", variable: path}, read)
    assert caught.value.problems == [f"{variable}: cannot read {named}: {type(error).__name__}"]


def test_all_problems_are_told_at_once_with_the_names() -> None:
    environ = {
        "CC_SESSION_TIMEOUT_MS": "soon",
        "CC_DELIVERY": "twice",
        "CC_ADMIN_PORT": "70000",
        "CC_INPUT_TOPICS": "x",
        "CC_SASL_PASSWORD_FILE": SECRET,
        "CC_GROUP_ID_FILE": "/mnt/none",
    }

    def read(path: str) -> str:
        raise FileNotFoundError(2, "none", path)

    with pytest.raises(SettingsError) as caught:
        parse(environ, read)
    told = caught.value.problems
    for variable in (*environ, "CC_BOOTSTRAP_SERVERS"):
        assert sum(each.startswith((f"{variable}:", f"{variable} is")) for each in told) == 1
    assert len(told) == 7
    assert "'soon'" in told[0]
    assert SECRET not in str(caught.value)
    assert str(caught.value) == "\n".join(told)


def test_all_conflicts_are_told_at_once() -> None:
    broken = {"CC_DRAIN_S": "60", "CC_HEARTBEAT_INTERVAL_MS": "45000", "CC_STATE_TOPIC": "conversation-updates"}
    told = problems(broken)
    assert len(told) == 3
    assert all(any(name in each for each in told) for name in broken)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_the_problem_of_a_secret_does_not_show_it(name: str) -> None:
    told = problems({f"CC_{name.upper()}": SECRET * 9, "CC_SECURITY_PROTOCOL": "SASL_SSL", "CC_ADMIN_PORT": SECRET})
    assert [each for each in told if SECRET in each and not each.startswith("CC_ADMIN_PORT: ")] == []


def test_every_password_and_key_is_a_secret() -> None:
    assert {name for name in NAMES if name.endswith(("_password", "_key", "_token"))} == SECRETS


@pytest.mark.parametrize(("name", "at_limit", "past"), LIMITS)
def test_each_limit(name: str, at_limit: str, past: str) -> None:
    variable = f"CC_{name.upper()}"
    assert [each for each in problems({variable: at_limit}) if each.startswith(f"{variable}:")] == []
    (told,) = problems({variable: past})
    assert told.startswith(f"{variable}: expected ")
    assert (f"not {past!r}" in told) == (name not in SECRETS)


def test_a_variable_that_is_no_setting_comes_with_the_one_that_may_be_meant() -> None:
    told = problems({"CC_STAT_TOPIC": "state", "CC_FOO": "1"})
    assert told == [
        "CC_STAT_TOPIC is no setting of this version: is CC_STATE_TOPIC meant?",
        "CC_FOO is no setting of this version: take it away",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("CC_DELIVERY", "twice", "expected one of exactly_once, at_least_once, not 'twice'"),
        ("CC_DRAIN_S", "soon", "expected a number above 0, not 'soon'"),
        ("CC_DEAD_LETTERS_RATIO_MAX", "2", "expected a number above 0 up to 1, not '2'"),
        ("CC_ADMIN_PORT", "99999", "expected a whole number from 0 up to 65535, not '99999'"),
        ("CC_BOOTSTRAP_SERVERS", "", "expected at least one character, not ''"),
        ("CC_QUERY_TOKEN", "short", "expected 16 to 256 letters, digits and `-._~+/=`"),
    ],
)
def test_what_is_expected_is_said_in_words(variable: str, text: str, told: str) -> None:
    assert problems({variable: text}) == [f"{variable}: {told}"]


@pytest.mark.parametrize(("name", "choice"), [(name, each) for name, found in CHOICES.items() for each in found])
def test_each_choice(name: str, choice: str) -> None:
    variable = f"CC_{name.upper()}"
    told = problems({variable: choice, "CC_SASL_USERNAME": "u", "CC_SASL_PASSWORD": "p"})
    assert told == []
    (told_of_another,) = problems({variable: f"{choice}x"})
    assert told_of_another.startswith(f"{variable}: ")


@pytest.mark.parametrize("text", ["nan", "-inf", "", "1,5", "x"])
@pytest.mark.parametrize(
    "name", ["commit_timeout_s", "slice_ms_max", "retry_s_max", "drain_s", "dead_letters_ratio_max"]
)
def test_a_duration_is_a_number(name: str, text: str) -> None:
    (told,) = problems({f"CC_{name.upper()}": text})
    assert told.startswith(f"CC_{name.upper()}: ")


def test_the_defaults_have_no_conflict() -> None:
    assert conflicts(DEFAULTS) == []


@pytest.mark.parametrize(("fine", "broken", "problem"), CONFLICTS)
def test_each_conflict_at_its_limit_and_past_it(fine: Changed, broken: Changed, problem: str) -> None:
    assert conflicts(settings_of(**fine)) == []
    (told,) = conflicts(settings_of(**broken))
    assert told.startswith(problem)
    assert problems({f"CC_{name.upper()}": str(value) for name, value in broken.items()}) == [told]
    assert problems({f"CC_{name.upper()}": str(value) for name, value in fine.items()}) == []


TOLD_ALONE = ("CC_RETRY_S_MAX must be finite", "CC_SLICE_MS_MAX must be finite", "CC_DIGEST_KEY must be at most")
"""Limits of one setting that its type cannot say."""


def test_each_conflict_names_both_settings() -> None:
    for _, _, problem in CONFLICTS:
        named = set(re.findall(r"CC_[A-Z_]+", problem)) & {f"CC_{name.upper()}" for name in NAMES}
        assert len(named) >= 2 or problem.startswith(TOLD_ALONE), problem


def test_the_rules_of_the_core_are_the_settings_of_the_same_names() -> None:
    assert DEFAULTS.rules() == Rules()
    changed = parse({f"CC_{name.upper()}": text for name, (text, _) in SET.items()}, no_file).rules()
    for name in Rules.__struct_fields__:
        expected = SET[name][1]
        assert getattr(changed, name) == (
            expected.encode() if isinstance(expected, str) and name == "digest_key" else expected
        )


def test_every_setting_is_described() -> None:
    found = {variable: (default, description) for variable, default, description in described()}
    assert list(found) == [f"CC_{name.upper()}" for name in NAMES]
    assert all(description for _, description in found.values())
    assert found["CC_BOOTSTRAP_SERVERS"][0] == "(required)"
    assert found["CC_SESSION_TIMEOUT_MS"][0] == "45000"
