"""Brokers that refuse the service: `run`, `check` and `topics` print the reason and a remedy once, and end.

They do not retry, because no retry can succeed. After an expiry a later start can, so the exit code differs.
"""

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from consumer.kafka.acls import Grant
from tests.live.authority import Authority
from tests.live.commands import ended
from tests.live.secure_broker import SecureBroker
from tests.live.tokens import put

OK, UNAVAILABLE, CONFIG = 0, 69, 78
SECRETS = ("hunter2-password", "hunter2-wrong", "hunter2-key", "PRIVATE KEY", "eyJ")
"""Passwords, PEM keys, and the beginning of every JWT; `eyJ` is `{"` in Base64."""
Environ = dict[str, str]


class Access(Struct, frozen=True):
    """A user of the secure broker; its methods give the environments of a client."""

    broker: SecureBroker
    folder: Path
    user: str

    def scram(self, password: str = "hunter2-password", address: str | None = None) -> Environ:
        (self.folder / "password").write_text(f"{password}\n")
        return {
            "CC_BOOTSTRAP_SERVERS": address or self.broker.sasl,
            "CC_SECURITY_PROTOCOL": "SASL_SSL",
            "CC_SSL_CA_FILE": str(self.broker.authority.ca_file),
            "CC_SASL_USERNAME": self.user,
            "CC_SASL_PASSWORD_FILE": str(self.folder / "password"),
        }

    def oauth(self, token: str | None) -> Environ:
        file = self.folder / "token"
        if token is not None:
            put(file, token)
        return {
            "CC_BOOTSTRAP_SERVERS": self.broker.sasl,
            "CC_SECURITY_PROTOCOL": "SASL_SSL",
            "CC_SSL_CA_FILE": str(self.broker.authority.ca_file),
            "CC_SASL_MECHANISM": "OAUTHBEARER",
            "CC_SASL_OAUTH_TOKEN_FILE": str(file),
        }

    def tls(self, authority: Authority | None = None, *, expired: bool = False) -> Environ:
        """TLS with a client certificate of the authority, or without one."""
        environ = {
            "CC_BOOTSTRAP_SERVERS": self.broker.tls,
            "CC_SECURITY_PROTOCOL": "SSL",
            "CC_SSL_CA_FILE": str(self.broker.authority.ca_file),
        }
        if authority is None:
            return environ
        issued = authority.issue(self.user, expired=expired, key_password="hunter2-key")
        return environ | {
            "CC_SSL_CERT_FILE": str(issued.cert_file),
            "CC_SSL_KEY_FILE": str(issued.key_file),
            "CC_SSL_KEY_PASSWORD": "hunter2-key",
        }

    def create_untrusted_authority(self) -> Authority:
        """An authority that the broker does not trust."""
        return Authority(self.folder, "untrusted")


def wrong_password(access: Access) -> Environ:
    return access.scram("hunter2-wrong")


def wrong_mechanism(access: Access) -> Environ:
    return access.scram() | {"CC_SASL_MECHANISM": "PLAIN"}


def untrusted_authority(access: Access) -> Environ:
    return access.scram() | {"CC_SSL_CA_FILE": str(access.create_untrusted_authority().ca_file)}


def another_host(access: Access) -> Environ:
    return access.scram(address=access.broker.sasl.replace("localhost", "127.0.0.1"))


def another_advertised_host(access: Access) -> Environ:
    return access.scram(address=access.broker.misnamed)


def expired_server(access: Access) -> Environ:
    return access.scram(address=access.broker.expired)


def expired_token(access: Access) -> Environ:
    return access.oauth(access.broker.tokens.token(access.user, -60))


def token_for_others(access: Access) -> Environ:
    return access.oauth(access.broker.tokens.token(access.user, 600, audience="others"))


def no_token(access: Access) -> Environ:
    return access.oauth(None)


def no_client_certificate(access: Access) -> Environ:
    return access.tls()


def expired_client_certificate(access: Access) -> Environ:
    return access.tls(access.broker.authority, expired=True)


def untrusted_client_certificate(access: Access) -> Environ:
    return access.tls(access.create_untrusted_authority())


def wrong_key_password(access: Access) -> Environ:
    return access.tls(access.broker.authority) | {"CC_SSL_KEY_PASSWORD": "hunter2-wrong"}


def no_permission(access: Access) -> Environ:
    return access.scram()


@pytest.mark.parametrize(
    ("case", "exit_code", "phrases"),
    [
        (wrong_password, CONFIG, ("the broker refused the credentials", "CC_SASL_PASSWORD")),
        (wrong_mechanism, CONFIG, ("the broker refused the credentials", "CC_SASL_MECHANISM")),
        (untrusted_authority, CONFIG, ("no trusted authority has issued", "CC_SSL_CA_FILE")),
        (another_host, CONFIG, ("certificate is for another host", "CC_BOOTSTRAP_SERVERS")),
        (another_advertised_host, CONFIG, ("connecting to 127.0.0.1:", "certificate is for another host")),
        (
            expired_server,
            UNAVAILABLE,
            ("certificate, or its authority in CC_SSL_CA_FILE, has expired", "have it renewed"),
        ),
        (expired_token, UNAVAILABLE, ("the token of CC_SASL_OAUTH_TOKEN_FILE: it expired at 2", "renews the file")),
        (token_for_others, CONFIG, ("refused the token of CC_SASL_OAUTH_TOKEN_FILE", "audience")),
        (no_token, CONFIG, ("CC_SASL_OAUTH_TOKEN_FILE: cannot use", "name a readable file that holds one token")),
        (no_client_certificate, CONFIG, ("the broker refused the client certificate", "CC_SSL_CERT_FILE")),
        (untrusted_client_certificate, CONFIG, ("the broker refused the client certificate", "trusts its authority")),
        (expired_client_certificate, CONFIG, ("the broker refused the client certificate", "has not expired")),
        (wrong_key_password, CONFIG, ("CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use", "the key's password")),
        (no_permission, CONFIG, ("(CC_INPUT_TOPIC): ", "--add --allow-principal User:")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_commands_report_the_refusal_and_end(
    case: Callable[[Access], Environ],
    exit_code: int,
    phrases: tuple[str, str],
    secure_broker: SecureBroker,
    tmp_path: Path,
) -> None:
    access = Access(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(access.user, "hunter2-password")
    environ = case(access) | {"CC_LOG_LEVEL": "debug", "CC_ADMIN_PORT": "0", "CC_QUERY_PORT": "0"}
    commands = ("run", "check", "topics")
    results = await asyncio.gather(*(ended(command, environ) for command in commands))
    for command, result in zip(commands, results, strict=True):
        assert result.exit_code == exit_code, result.printed
        for phrase in phrases:
            assert phrase in result.printed, (command, result.printed)
        assert result.printed.count(phrases[0]) == 1, (command, result.printed)
        assert [secret for secret in SECRETS if secret in result.printed] == []
        if command == "run":
            last = json.loads(result.printed.splitlines()[-1])
            assert (last["event"], last["exit_code"]) == ("consumer.failed", exit_code)
            assert phrases[0] in last["error"]


async def test_valid_credentials_are_accepted(secure_broker: SecureBroker, tmp_path: Path) -> None:
    """The control: with a password, a token or a certificate only the topics are missing."""
    access = Access(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(access.user, "hunter2-password")
    look = Grant("topic", "conversation-", "", ("Describe", "DescribeConfigs"), is_prefix=True)
    for user in (access.user, f"CN={access.user}"):
        secure_broker.allow(user, [look])
    environs = (
        access.scram(),
        access.oauth(secure_broker.tokens.token(access.user, 600)),
        access.tls(secure_broker.authority),
    )
    for result in await asyncio.gather(*(ended("topics", environ) for environ in environs)):
        assert result.exit_code == CONFIG
        assert result.printed.count("does not exist") == 4, result.printed


def topic_names(user: str) -> Environ:
    """The settings of the four topics of a user."""
    return {f"CC_{topic}_TOPIC": f"{user}-{topic}" for topic in ("INPUT", "STATE", "TRANSITIONS", "DEAD_LETTERS")}


async def test_listed_permissions_suffice_to_create_and_fill_topics(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    access = Access(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(access.user, "hunter2-password")
    names = topic_names(access.user)
    environ = access.scram() | names
    operations = ("Describe", "DescribeConfigs", "Create")
    refused = await ended("topics --create", environ)
    assert (refused.exit_code, refused.printed.count("DescribeConfigs not allowed")) == (CONFIG, 4)
    secure_broker.allow(access.user, [Grant("topic", access.user, "", operations[:2], is_prefix=True)])
    refused = await ended("topics --create", environ)
    assert (refused.exit_code, refused.printed.count("Create on the topic or the cluster")) == (CONFIG, 4)
    secure_broker.allow(access.user, [Grant("topic", access.user, "", operations[2:], is_prefix=True)])
    created = await ended("topics --create", environ)
    assert (created.exit_code, created.printed.count(" created ")) == (OK, 4), created.printed
    refused = await ended("generate --count 10", environ)
    assert refused.exit_code == CONFIG, refused.printed
    secure_broker.allow(access.user, [Grant("topic", names["CC_INPUT_TOPIC"], "", ("Write",))])
    filled = await ended("generate --count 10", environ)
    assert filled.exit_code == OK, filled.printed


async def test_listed_permissions_suffice_for_the_repair_tools(secure_broker: SecureBroker, tmp_path: Path) -> None:
    owner, access = (Access(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}") for _ in range(2))
    names = topic_names(owner.user)
    for user in (owner.user, access.user):
        secure_broker.add_user(user, "hunter2-password")
    secure_broker.allow(
        owner.user,
        [Grant("topic", owner.user, "", ("Describe", "DescribeConfigs", "Create", "Write"), is_prefix=True)],
    )
    for command in ("topics --create", "generate --count 100"):
        result = await ended(command, owner.scram() | names)
        assert result.exit_code == OK, result.printed
    source, letters, target = (names[f"CC_{topic}_TOPIC"] for topic in ("INPUT", "DEAD_LETTERS", "TRANSITIONS"))
    ids = Grant("transactional-id", f"conversation-consumer:{source}:", "", ("Write",), is_prefix=True)
    group = Grant("group", f"conversation-consumer-rekey.{source}.{target}", "", ("Read",))
    environ = access.scram() | names
    for command, grants in (
        ("dead-letters list", [Grant("topic", letters, "", ("Read",)), Grant("topic", source, "", ("Describe",))]),
        (
            "dead-letters redrive --yes",
            [Grant("topic", letters, "", ("Write",)), Grant("topic", source, "", ("Read", "Write")), ids],
        ),
        (
            f"rekey {source} {target}",
            [Grant("topic", target, "", ("Read", "Write")), group],
        ),
    ):
        refused = await ended(command, environ)
        assert refused.exit_code == CONFIG, refused.printed
        assert "--add --allow-principal User:" in refused.printed
        secure_broker.allow(access.user, grants)
        result = await ended(command, environ)
        assert result.exit_code == OK, result.printed
    assert "copied 100 records" in result.printed
