"""A broker that does not let the service in: `run`, `check` and `topics` each say why and what to do, once, and end.

They end at once: none of this is mended by trying again, except what expired, which is for a later start.
"""

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from consumer.adapters.kafka.permissions import Grant
from tests.live.authority import Authority
from tests.live.commands import ended
from tests.live.secure_broker import SecureBroker
from tests.live.tokens import put

pytestmark = pytest.mark.kafka

OK, UNAVAILABLE, CONFIG = 0, 69, 78
SECRETS = ("hunter2-password", "hunter2-wrong", "hunter2-key", "PRIVATE KEY", "eyJ")
"""Passwords, PEM keys, and the beginning of every JWT; `eyJ` is `{"` in Base64."""
Environ = dict[str, str]


class Place(Struct, frozen=True):
    """What a case can be made of."""

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
        """With a client certificate of the authority, or with none."""
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

    def stranger(self) -> Authority:
        """An authority that nobody trusts."""
        return Authority(self.folder, "stranger")


def wrong_password(place: Place) -> Environ:
    return place.scram("hunter2-wrong")


def wrong_mechanism(place: Place) -> Environ:
    return place.scram() | {"CC_SASL_MECHANISM": "PLAIN"}


def untrusted_authority(place: Place) -> Environ:
    return place.scram() | {"CC_SSL_CA_FILE": str(place.stranger().ca_file)}


def another_host(place: Place) -> Environ:
    return place.scram(address=place.broker.sasl.replace("localhost", "127.0.0.1"))


def another_advertised_host(place: Place) -> Environ:
    return place.scram(address=place.broker.misnamed)


def expired_server(place: Place) -> Environ:
    return place.scram(address=place.broker.expired)


def expired_token(place: Place) -> Environ:
    return place.oauth(place.broker.tokens.token(place.user, -60))


def token_for_others(place: Place) -> Environ:
    return place.oauth(place.broker.tokens.token(place.user, 600, audience="others"))


def no_token(place: Place) -> Environ:
    return place.oauth(None)


def no_client_certificate(place: Place) -> Environ:
    return place.tls()


def expired_client_certificate(place: Place) -> Environ:
    return place.tls(place.broker.authority, expired=True)


def strangers_client_certificate(place: Place) -> Environ:
    return place.tls(place.stranger())


def wrong_key_password(place: Place) -> Environ:
    return place.tls(place.broker.authority) | {"CC_SSL_KEY_PASSWORD": "hunter2-wrong"}


def no_permission(place: Place) -> Environ:
    return place.scram()


@pytest.mark.parametrize(
    ("case", "exit_code", "says"),
    [
        (wrong_password, CONFIG, ("the broker refused the credentials", "CC_SASL_PASSWORD")),
        (wrong_mechanism, CONFIG, ("the broker refused the credentials", "CC_SASL_MECHANISM")),
        (untrusted_authority, CONFIG, ("of no authority that is trusted", "CC_SSL_CA_FILE")),
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
        (strangers_client_certificate, CONFIG, ("the broker refused the client certificate", "trusts its authority")),
        (expired_client_certificate, CONFIG, ("the broker refused the client certificate", "has not expired")),
        (wrong_key_password, CONFIG, ("CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use", "the key's password")),
        (no_permission, CONFIG, ("(CC_INPUT_TOPIC): ", "--add --allow-principal User:")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_each_command_says_why_and_ends(
    case: Callable[[Place], Environ],
    exit_code: int,
    says: tuple[str, str],
    secure_broker: SecureBroker,
    tmp_path: Path,
) -> None:
    place = Place(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(place.user, "hunter2-password")
    environ = case(place) | {"CC_LOG_LEVEL": "debug", "CC_ADMIN_PORT": "0", "CC_QUERY_PORT": "0"}
    commands = ("run", "check", "topics")
    for command, found in zip(
        commands, await asyncio.gather(*(ended(each, environ) for each in commands)), strict=True
    ):
        assert found.exit_code == exit_code, found.printed
        for words in says:
            assert words in found.printed, (command, found.printed)
        assert found.printed.count(says[0]) == 1, (command, found.printed)
        assert [secret for secret in SECRETS if secret in found.printed] == []
        if command == "run":
            last = json.loads(found.printed.splitlines()[-1])
            assert (last["event"], last["exit_code"]) == ("consumer.failed", exit_code)
            assert says[0] in last["error"]


async def test_a_broker_that_lets_the_service_in_is_the_control(secure_broker: SecureBroker, tmp_path: Path) -> None:
    """All three ways in get as far as the topics, which do not exist."""
    place = Place(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(place.user, "hunter2-password")
    look = Grant("topic", "conversation-", "", ("Describe", "DescribeConfigs"), is_prefix=True)
    for user in (place.user, f"CN={place.user}"):
        secure_broker.allow(user, [look])
    ways = (
        place.scram(),
        place.oauth(secure_broker.tokens.token(place.user, 600)),
        place.tls(secure_broker.authority),
    )
    for found in await asyncio.gather(*(ended("topics", environ) for environ in ways)):
        assert found.exit_code == CONFIG
        assert found.printed.count("does not exist") == 4, found.printed


async def test_topics_can_be_made_and_filled_with_the_permissions_that_are_listed_for_it(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    place = Place(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}")
    secure_broker.add_user(place.user, "hunter2-password")
    names = {f"CC_{each}_TOPIC": f"{place.user}-{each}" for each in ("INPUT", "STATE", "TRANSITIONS", "DEAD_LETTERS")}
    environ = place.scram() | names
    operations = ("Describe", "DescribeConfigs", "Create")
    refused = await ended("topics --create", environ)
    assert (refused.exit_code, refused.printed.count("DescribeConfigs not allowed")) == (CONFIG, 4)
    secure_broker.allow(place.user, [Grant("topic", place.user, "", operations[:2], is_prefix=True)])
    refused = await ended("topics --create", environ)
    assert (refused.exit_code, refused.printed.count("Create on the topic or the cluster")) == (CONFIG, 4)
    secure_broker.allow(place.user, [Grant("topic", place.user, "", operations[2:], is_prefix=True)])
    made = await ended("topics --create", environ)
    assert (made.exit_code, made.printed.count(" created ")) == (OK, 4), made.printed
    refused = await ended("generate --count 10", environ)
    assert refused.exit_code == CONFIG, refused.printed
    secure_broker.allow(place.user, [Grant("topic", names["CC_INPUT_TOPIC"], "", ("Write",))])
    filled = await ended("generate --count 10", environ)
    assert filled.exit_code == OK, filled.printed


async def test_repair_tools_get_along_with_the_permissions_that_are_listed_for_them(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    owner, place = (Place(secure_broker, tmp_path, f"user-{uuid.uuid4().hex}") for _ in range(2))
    names = {f"CC_{each}_TOPIC": f"{owner.user}-{each}" for each in ("INPUT", "STATE", "TRANSITIONS", "DEAD_LETTERS")}
    for each in (owner, place):
        secure_broker.add_user(each.user, "hunter2-password")
    secure_broker.allow(
        owner.user,
        [Grant("topic", owner.user, "", ("Describe", "DescribeConfigs", "Create", "Write"), is_prefix=True)],
    )
    for command in ("topics --create", "generate --count 100"):
        made = await ended(command, owner.scram() | names)
        assert made.exit_code == OK, made.printed
    source, letters, target = (names[f"CC_{each}_TOPIC"] for each in ("INPUT", "DEAD_LETTERS", "TRANSITIONS"))
    ids = Grant("transactional-id", f"conversation-consumer:{source}:", "", ("Write",), is_prefix=True)
    group = Grant("group", f"conversation-consumer-rekey.{source}.{target}", "", ("Read",))
    environ = place.scram() | names
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
        secure_broker.allow(place.user, grants)
        found = await ended(command, environ)
        assert found.exit_code == OK, found.printed
    assert "copied 100 records" in found.printed
