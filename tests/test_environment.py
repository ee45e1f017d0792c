"""Settings from the environment: every one of them, the files of secrets, every limit and every conflict."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from msgspec.structs import FieldInfo

from consumer.core.rules import Rules
from consumer.environment import SettingsError, conflicts, describe_all, find_secret_files, parse
from consumer.settings import SECRETS, Settings, is_token_endpoint
from consumer.tuning import Tuning
from tests.worker.scenes import settings_of

SECRET = "mark-of-a-secret"
DEFAULTS = settings_of()
FIELDS = {field.name: field for field in msgspec.structs.fields(Settings) if field.name != "tuning"}


def variable_of(name: str) -> str:
    return f"CC_{name.upper()}"


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The values of a setting that has only a few."""
    kind = field.type.__origin__
    return get_args(kind) if get_origin(kind) is Literal else ()


def change(field: FieldInfo) -> Any:
    """A value that is not the default; together those of all settings have no conflict."""
    default = getattr(DEFAULTS, field.name)
    if field.name == "log_level":
        return "debug"  # the audit needs it
    if field.name == "sasl_mechanism":
        return "PLAIN"  # tokens have one of two sources
    if choices := choices_of(field):
        return choices[-1] if choices[-1] != default else choices[0]
    if isinstance(default, str):
        return f"another-{field.name}"
    return default / 2 if isinstance(default, float) else default + 1


CHANGED = {name: change(field) for name, field in FIELDS.items()}
ENVIRON = {variable_of(name): str(value) for name, value in CHANGED.items()}


def limits_of(field: FieldInfo) -> list[tuple[str, str]]:
    """A text at each limit of a setting, and one past it."""
    found = []
    for meta in field.type.__metadata__:
        if meta.ge is not None:
            found.append((str(meta.ge), str(meta.ge - 1)))
        if meta.gt is not None:
            found.append((str(meta.gt + 0.001), str(meta.gt)))
        if meta.le is not None:
            found.append((str(meta.le), str(meta.le + 1)))
        if meta.min_length is not None:
            found.append(("x" * meta.min_length, ""))
    return found


LIMITS = [
    *((name, *limit) for name, field in FIELDS.items() for limit in limits_of(field)),
    ("query_token", "t" * 16, "t" * 15),
    ("query_token", "t" * 256, "t" * 257),
    ("query_token", "-._~+/=0aZ" * 2, "with some space in it"),
    ("query_token", "", "ends-with-a-newline\n"),
]

CLIENT_CREDENTIALS = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauth_token_endpoint": "https://id.example/token",
    "sasl_oauth_client_id": "worker",
    "sasl_oauth_client_secret_file": "/s",
}

CONFLICTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"session_timeout_ms": 30_001, "drain_s": 30.0},
        {"session_timeout_ms": 30_001, "drain_s": 30.001},
        "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"commit_timeout_s": 29.999},
        {"commit_timeout_s": 30.0},
        "the transaction timeout, 1.5 times CC_COMMIT_TIMEOUT_S, must be below CC_SESSION_TIMEOUT_MS",
    ),
    (
        {"commit_interval_ms": 29_999},
        {"commit_interval_ms": 30_000},
        "CC_COMMIT_INTERVAL_MS must be below the transaction timeout, 1.5 times CC_COMMIT_TIMEOUT_S",
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
            {
                "security_protocol": protocol,
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_file": "/t",
                "allow_cleartext_credentials": "yes",
            },
            {
                "security_protocol": protocol,
                "sasl_mechanism": "OAUTHBEARER",
                "allow_cleartext_credentials": "yes",
                "sasl_username": "u",
                "sasl_password": "p",
            },
            "CC_SASL_MECHANISM=OAUTHBEARER needs either CC_SASL_OAUTH_TOKEN_FILE or CC_SASL_OAUTH_TOKEN_ENDPOINT",
        )
        for protocol in ("SASL_PLAINTEXT", "SASL_SSL")
    ),
    *(
        (
            {"security_protocol": "SASL_PLAINTEXT", "allow_cleartext_credentials": "yes"} | credentials,
            {"security_protocol": "SASL_PLAINTEXT"} | credentials,
            "CC_SASL_MECHANISM sends the password or the token itself, and CC_SECURITY_PROTOCOL=SASL_PLAINTEXT",
        )
        for credentials in (
            {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": SECRET},
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/t"},
        )
    ),
    (
        CLIENT_CREDENTIALS,
        CLIENT_CREDENTIALS | {"sasl_oauth_token_file": "/t"},
        "CC_SASL_MECHANISM=OAUTHBEARER needs either CC_SASL_OAUTH_TOKEN_FILE or CC_SASL_OAUTH_TOKEN_ENDPOINT",
    ),
    *(
        (
            CLIENT_CREDENTIALS,
            CLIENT_CREDENTIALS | {name: ""},
            "CC_SASL_OAUTH_TOKEN_ENDPOINT needs CC_SASL_OAUTH_CLIENT_ID and CC_SASL_OAUTH_CLIENT_SECRET_FILE",
        )
        for name in ("sasl_oauth_client_id", "sasl_oauth_client_secret_file")
    ),
    (
        CLIENT_CREDENTIALS | {"sasl_oauth_token_endpoint": "http://127.0.0.1:8080/token"},
        CLIENT_CREDENTIALS | {"sasl_oauth_token_endpoint": f"http://id.example/{SECRET}"},
        "CC_SASL_OAUTH_TOKEN_ENDPOINT is no `https://` URL",
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
        {"query_advertised": "10.0.0.1:8081", "query_token": SECRET},
        {"query_advertised": "10.0.0.1:0", "query_token": SECRET},
        "CC_QUERY_ADVERTISED is no address",
    ),
    (
        {"query_advertised": "127.0.0.1"},
        {"query_advertised": "127.0.0.1", "query_port": "off"},
        "CC_QUERY_ADVERTISED needs a query port, and CC_QUERY_PORT is off",
    ),
    (
        {"query_advertised": "[::1]:8081"},
        {"query_advertised": "[fd00::1]:8081"},
        "CC_QUERY_ADVERTISED beyond loopback needs CC_QUERY_TOKEN (or CC_QUERY_TOKEN_FILE)",
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
    (
        {"query_port": "off", "query_host": "0.0.0.0"},
        {"query_host": "0.0.0.0"},
        "CC_QUERY_HOST beyond loopback needs CC_QUERY_TOKEN",
    ),
    (
        {"query_audit": "on", "log_level": "info"},
        {"query_audit": "on", "log_level": "warning"},
        "CC_QUERY_AUDIT=on needs CC_LOG_LEVEL info or debug",
    ),
]
"""Settings right at the limit, the same past it, and how the problem begins."""


def read_nothing(path: str) -> str:
    raise AssertionError(f"{path} was read")


def problems_of(environ: Mapping[str, str]) -> list[str]:
    try:
        parse({"CC_BOOTSTRAP_SERVERS": "b:1", **environ}, read_nothing)
    except SettingsError as error:
        return error.problems
    return []


def test_every_setting_is_read_from_its_variable() -> None:
    settings = msgspec.structs.asdict(parse(ENVIRON, read_nothing))
    assert settings.pop("tuning") == Tuning()
    assert settings == CHANGED
    assert {name: type(value) for name, value in settings.items()} == {
        name: type(value) for name, value in CHANGED.items()
    }


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_can_be_read_from_a_file(name: str) -> None:
    variable = variable_of(name)
    environ = {other: text for other, text in ENVIRON.items() if other != variable}
    settings = parse(environ | {f"{variable}_FILE": "/mnt/x"}, {"/mnt/x": f" {ENVIRON[variable]}\n"}.__getitem__)
    assert getattr(settings, name) == CHANGED[name]


def test_only_the_brokers_are_required() -> None:
    """Variables without the prefix belong to other programs."""
    environ = {"CC_BOOTSTRAP_SERVERS": "b:1", "PATH": "/bin", "XCC_INPUT_TOPIC": "x", "CCC": "1"}
    assert parse(environ, read_nothing) == DEFAULTS
    with pytest.raises(SettingsError, match=r"^CC_BOOTSTRAP_SERVERS is not set: Kafka brokers, `host:port`"):
        parse({}, read_nothing)


def test_a_secret_that_is_set_twice_is_a_problem() -> None:
    environ = {"CC_BOOTSTRAP_SERVERS": "b:1", "CC_SASL_PASSWORD": SECRET, "CC_SASL_PASSWORD_FILE": "/mnt/x"}
    for ordered in (environ, dict(reversed(environ.items()))):
        with pytest.raises(SettingsError) as caught:
            parse(ordered, lambda _: SECRET)
        assert caught.value.problems == ["CC_SASL_PASSWORD and CC_SASL_PASSWORD_FILE are both set: set one"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, SECRET), PermissionError(13, SECRET), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "")]
)
@pytest.mark.parametrize("name", ["group_id", "digest_key"])
def test_a_file_that_cannot_be_read_is_a_problem(name: str, error: Exception, tmp_path: Path) -> None:
    """Its name is shown only if there is such a file: it may be the secret, which was to be in the file."""

    def read(_: str) -> str:
        raise error

    variable, file = f"{variable_of(name)}_FILE", tmp_path / "file"
    file.touch()
    for path, named in (
        (str(file), repr(str(file))),
        (SECRET, "the file it names"),
        (f"{SECRET}\0", "the file it names"),
    ):
        with pytest.raises(SettingsError) as caught:
            parse({"CC_BOOTSTRAP_SERVERS": "b:1", variable: path}, read)
        assert caught.value.problems == [f"{variable}: cannot read {named}: {type(error).__name__}"]


@pytest.mark.parametrize(
    ("url", "is_usable"),
    [
        ("https://id.example/realms/a/token?x=1", True),
        ("https://10.0.0.1:8443/token", True),
        ("HTTPS://[2001:db8::1]/token", True),
        ("http://localhost:8080/token", True),
        ("http://[::1]:8080/token", True),
        ("http://id.example/token", False),
        ("http://localhost.example/token", False),
        ("http://127.0.0.1@id.example/token", False),
        ("https://user:password@id.example/token", False),
        ("https:///token", False),
        ("https://id.example:0/token", False),
        ("https://id.example:99999/token", False),
        ("https://[::1/token", False),
        ("https://id.example/to ken", False),
        ("https://id.example/t\u00f6ken", False),
        ("id.example/token", False),
        ("file:///etc/token", False),
    ],
)
def test_secret_of_a_client_is_sent_over_tls_or_stays_here(url: str, *, is_usable: bool) -> None:
    assert is_token_endpoint(url) == is_usable


def test_the_problem_of_a_wrong_file_does_not_show_its_content() -> None:
    with pytest.raises(SettingsError) as caught:
        parse({"CC_BOOTSTRAP_SERVERS": "b:1", "CC_ADMIN_PORT_FILE": "/mnt/key"}, lambda _: SECRET)
    assert caught.value.problems == ["CC_ADMIN_PORT: expected a whole number from 0 up to 65535"]


def test_files_of_secrets_are_found_by_variable() -> None:
    environ = {f"{variable_of(name)}_FILE": f"/{name}" for name in FIELDS} | ENVIRON
    found = {variable_of(name) for name in ("sasl_oauth_client_secret_file", "sasl_oauth_token_file", "ssl_key_file")}
    found |= {f"{variable_of(name)}_FILE" for name in SECRETS}
    assert find_secret_files(environ) == {variable: environ[variable] for variable in found}
    assert find_secret_files({"CC_SSL_KEY_FILE": ""}) == {}


def test_settings_are_shown_without_secrets() -> None:
    hidden = [name for name in FIELDS if name in SECRETS or name.endswith("_file")]
    settings = Settings(**CHANGED | dict.fromkeys(hidden, SECRET))
    assert SECRET not in repr(settings)
    assert "group_id='another-group_id'" in repr(settings)
    assert SECRET not in repr(settings.rules())
    assert "state_bytes_max=524289" in repr(settings.rules())


def test_all_problems_are_reported_at_once_with_the_names() -> None:
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
    problems = caught.value.problems
    for variable in (*environ, "CC_BOOTSTRAP_SERVERS"):
        assert sum(problem.startswith((f"{variable}:", f"{variable} is")) for problem in problems) == 1
    assert len(problems) == 7
    assert "'soon'" in problems[0]
    assert SECRET not in str(caught.value)
    assert str(caught.value) == "\n".join(problems)


def test_all_conflicts_are_reported_at_once() -> None:
    broken = {"CC_DRAIN_S": "60", "CC_COMMIT_TIMEOUT_S": "30", "CC_STATE_TOPIC": "conversation-updates"}
    problems = problems_of(broken)
    assert len(problems) == 3
    assert all(any(name in problem for problem in problems) for name in broken)


def test_conflicts_are_reported_beside_other_problems() -> None:
    environ = {"CC_DRAIN_S": "60", "CC_GROUP_ID": "", "CC_QUERY_HOST": "0.0.0.0"}
    drain, group, token = sorted(problems_of(environ))
    assert "CC_DRAIN_S must be shorter than CC_SESSION_TIMEOUT_MS" in drain
    assert group.startswith("CC_GROUP_ID: expected")
    assert "needs CC_QUERY_TOKEN" in token


def test_an_unusable_value_is_part_of_no_conflict() -> None:
    (problem,) = problems_of({"CC_DRAIN_S": "60", "CC_SESSION_TIMEOUT_MS": "a minute"})
    assert problem.startswith("CC_SESSION_TIMEOUT_MS: expected")


@pytest.mark.parametrize("level", ["INFO", "Info", "info"])
def test_a_choice_may_be_in_any_case(level: str) -> None:
    environ = {"CC_BOOTSTRAP_SERVERS": "b:1", "CC_LOG_LEVEL": level, "CC_SECURITY_PROTOCOL": "plaintext"}
    settings = parse(environ, lambda path: path)
    assert (settings.log_level, settings.security_protocol) == ("info", "PLAINTEXT")


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_the_problem_of_a_secret_does_not_show_it(name: str) -> None:
    environ = {variable_of(name): SECRET * 9, "CC_SECURITY_PROTOCOL": "SASL_SSL", "CC_ADMIN_PORT": SECRET}
    revealing = [problem for problem in problems_of(environ) if SECRET in problem]
    assert [problem.partition(":")[0] for problem in revealing] == ["CC_ADMIN_PORT"]


def test_every_password_and_key_is_a_secret() -> None:
    assert {name for name in FIELDS if name.endswith(("_password", "_key", "_token"))} == SECRETS


@pytest.mark.parametrize(("name", "at_limit", "past"), LIMITS)
def test_every_limit(name: str, at_limit: str, past: str) -> None:
    variable = variable_of(name)
    assert [problem for problem in problems_of({variable: at_limit}) if problem.startswith(f"{variable}:")] == []
    (problem,) = problems_of({variable: past})
    assert problem.startswith(f"{variable}: expected ")
    assert (f"not {past!r}" in problem) == (name not in SECRETS)


def test_a_variable_that_is_no_setting_comes_with_a_suggestion() -> None:
    """Only where the names are so similar that it is a slip: the name of a setting that is gone suggests no other."""
    assert problems_of({"CC_STAT_TOPIC": "state", "CC_FOO": "1", "CC_FETCH_RECORDS_MAX": "500"}) == [
        "CC_STAT_TOPIC is not a setting of this version: is CC_STATE_TOPIC meant?",
        "CC_FOO is not a setting of this version: remove it",
        "CC_FETCH_RECORDS_MAX is not a setting of this version: remove it",
    ]


@pytest.mark.parametrize("name", ["tuning", *Tuning.__struct_fields__])
def test_the_environment_cannot_set_the_tuning(name: str) -> None:
    for variable in (variable_of(name), f"{variable_of(name)}_FILE"):
        assert problems_of({variable: "1"}) == [f"{variable} is not a setting of this version: remove it"]


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("CC_DELIVERY", "twice", "expected one of exactly_once, at_least_once, not 'twice'"),
        ("CC_DRAIN_S", "soon", "expected a number above 0, not 'soon'"),
        ("CC_DEAD_LETTERS_RATIO_MAX", "2", "expected a number above 0 up to 1, not '2'"),
        ("CC_ADMIN_PORT", "99999", "expected a whole number from 0 up to 65535, not '99999'"),
        ("CC_QUERY_PORT", "of", "expected a whole number from 0 up to 65535, or off, not 'of'"),
        ("CC_BOOTSTRAP_SERVERS", "", "expected at least one character, not ''"),
        ("CC_QUERY_TOKEN", "short", "expected 16 to 256 letters, digits and `-._~+/=`"),
    ],
)
def test_a_problem_says_in_words_what_is_expected(variable: str, text: str, expected: str) -> None:
    assert problems_of({variable: text}) == [f"{variable}: {expected}"]


@pytest.mark.parametrize(
    ("name", "choice"), [(name, choice) for name, field in FIELDS.items() for choice in choices_of(field)]
)
def test_every_choice(name: str, choice: str) -> None:
    variable = variable_of(name)
    assert problems_of({variable: choice, "CC_SASL_USERNAME": "u", "CC_SASL_PASSWORD": "p"}) == []
    (problem,) = problems_of({variable: f"{choice}x"})
    assert problem.startswith(f"{variable}: ")


@pytest.mark.parametrize("text", ["nan", "-inf", "", "1,5", "x"])
@pytest.mark.parametrize("name", [name for name, value in CHANGED.items() if isinstance(value, float)])
def test_a_duration_or_a_share_is_a_number(name: str, text: str) -> None:
    (problem,) = problems_of({variable_of(name): text})
    assert problem.startswith(f"{variable_of(name)}: ")


def test_the_defaults_have_no_conflict() -> None:
    assert conflicts(DEFAULTS) == []


@pytest.mark.parametrize(("at_limit", "past", "beginning"), CONFLICTS)
def test_every_conflict_at_its_limit_and_past_it(
    at_limit: dict[str, Any], past: dict[str, Any], beginning: str
) -> None:
    assert conflicts(settings_of(**at_limit)) == []
    (problem,) = conflicts(settings_of(**past))
    assert problem.startswith(beginning)
    assert problems_of({variable_of(name): str(value) for name, value in past.items()}) == [problem]
    assert problems_of({variable_of(name): str(value) for name, value in at_limit.items()}) == []


OF_ONE_SETTING = (
    "CC_DIGEST_KEY must be at most",
    "CC_QUERY_ADVERTISED is no address",
    "CC_SASL_OAUTH_TOKEN_ENDPOINT is no",
)
"""A limit of one setting that its type cannot say."""


def test_every_conflict_names_both_settings() -> None:
    for _, _, problem in CONFLICTS:
        named = set(re.findall(r"CC_[A-Z_]+", problem)) & ENVIRON.keys()
        assert len(named) >= 2 or problem.startswith(OF_ONE_SETTING), problem


def test_rules_of_the_core_are_settings_of_the_same_names() -> None:
    assert DEFAULTS.rules() == Rules()
    rules = parse(ENVIRON, read_nothing).rules()
    for name in Rules.__struct_fields__:
        expected = CHANGED.get(name, getattr(Rules(), name))
        assert getattr(rules, name) == (expected.encode() if name == "digest_key" else expected)


def test_every_setting_is_described() -> None:
    rows = {variable: (default, description) for variable, default, description in describe_all()}
    assert list(rows) == list(ENVIRON)
    assert all(description for _, description in rows.values())
    assert rows["CC_BOOTSTRAP_SERVERS"][0] == "(required)"
    assert rows["CC_SESSION_TIMEOUT_MS"][0] == "45000"


def test_timeouts_of_the_group_follow_the_settings() -> None:
    settings = settings_of(session_timeout_ms=18_000, commit_timeout_s=4.0)
    assert (settings.heartbeat_interval_ms, settings.rebalance_timeout_ms) == (2_000, 12_000)
    assert (DEFAULTS.heartbeat_interval_ms, DEFAULTS.rebalance_timeout_ms) == (5_000, 60_000)
    assert (settings.transaction_timeout_ms, DEFAULTS.transaction_timeout_ms) == (6_000, 30_000)


@pytest.mark.parametrize(("session_timeout_ms", "max_poll_interval_ms"), [(45_000, 300_000), (300_001, 300_001)])
def test_poll_interval_is_no_shorter_than_the_session(session_timeout_ms: int, max_poll_interval_ms: int) -> None:
    assert settings_of(session_timeout_ms=session_timeout_ms).max_poll_interval_ms == max_poll_interval_ms


@pytest.mark.parametrize(("commit_records_max", "fetch_records_max"), [(20, 20), (500, 500), (501, 500)])
def test_a_fetch_holds_no_more_than_a_commit(commit_records_max: int, fetch_records_max: int) -> None:
    assert settings_of(commit_records_max=commit_records_max).fetch_records_max == fetch_records_max
