"""The arguments of Kafka's clients, and what an error means to an operator. No broker takes part."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient

from consumer.kafka.connection import connection_arguments, find_connection_error
from consumer.kafka.errors import Expired, Renewable, as_retriable, map_error
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError, FencedError, RetriableError
from tests.kafka.refusing_broker import refusing_broker

SECRET = "hunter2-marked"


def expired_certificate() -> ssl.SSLError:
    """As Python raises it when the other side's certificate has expired."""
    error = ssl.SSLCertVerificationError()
    error.verify_code = 10
    return error


def refused_certificate() -> errors.KafkaConnectionError:
    """As aiokafka raises it when a broker refuses the client's, after the handshake."""
    error = errors.KafkaConnectionError()
    error.__cause__ = ssl.SSLError(1, "sslv3 alert certificate unknown")
    error.__cause__.reason = "SSLV3_ALERT_CERTIFICATE_UNKNOWN"
    return error


def settings(**changed: Any) -> Settings:
    return Settings(**{"bootstrap_servers": "127.0.0.1:9092", **changed})


def test_plaintext_has_neither_certificates_nor_credentials() -> None:
    assert connection_arguments(settings(sasl_username="u", sasl_password=SECRET)) == {
        "bootstrap_servers": "127.0.0.1:9092",
        "client_id": "conversation-consumer",
        "request_timeout_ms": 15_000,
        "security_protocol": "PLAINTEXT",
    }


def test_sasl_over_tls_has_both() -> None:
    arguments = connection_arguments(
        settings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u", sasl_password=SECRET)
    )
    context = arguments["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (arguments["sasl_mechanism"], arguments["sasl_plain_username"]) == ("PLAIN", "u")
    assert arguments["sasl_plain_password"] == SECRET


def test_token_replaces_the_password() -> None:
    arguments = connection_arguments(
        settings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file="/run/token")
    )
    assert isinstance(arguments["sasl_oauth_token_provider"], AbstractTokenProvider)
    assert "sasl_plain_password" not in arguments


def test_clients_share_a_tls_context() -> None:
    secured = settings(security_protocol="SSL")
    assert connection_arguments(secured)["ssl_context"] is connection_arguments(secured)["ssl_context"]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
async def test_every_client_accepts_the_arguments(protocol: str) -> None:
    arguments = connection_arguments(settings(security_protocol=protocol, sasl_username="u", sasl_password=SECRET))
    for client in (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient):
        client(**arguments)


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_unusable_authority_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"CC_SSL_CA_FILE: cannot use .*ca\.pem.*: name a readable PEM file"):
        connection_arguments(settings(security_protocol="SSL", ssl_ca_file=str(path)))


def test_unusable_client_certificate_is_named(tmp_path: Path) -> None:
    """Without the password of its key."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(
        ConfigurationError, match=r"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use .*CC_SSL_KEY_PASSWORD"
    ) as refused:
        connection_arguments(
            settings(
                security_protocol="SSL",
                ssl_cert_file=str(tmp_path / "cert.pem"),
                ssl_key_file=str(tmp_path / "key.pem"),
                ssl_key_password=SECRET,
            )
        )
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_secret_in_the_place_of_its_file_is_not_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    files = {f"ssl_{other}_file": str(tmp_path / "file") for other in ("cert", "key")}
    files[f"ssl_{name}_file"] = SECRET
    with pytest.raises(ConfigurationError, match=r"CC_SSL_.*cannot use .*the file it names") as refused:
        connection_arguments(settings(security_protocol="SSL", **files))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_device_is_no_certificate(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    files = {f"ssl_{other}_file": str(tmp_path / "file") for other in ("cert", "key")} | {
        f"ssl_{name}_file": "/dev/zero"
    }
    with pytest.raises(ConfigurationError, match=r"CC_SSL_.*'/dev/zero'.*: it is no regular file: name"):
        connection_arguments(settings(security_protocol="SSL", **files))


async def test_token_in_the_place_of_its_file_is_not_shown() -> None:
    with refusing_broker() as address:
        error = await find_connection_error(
            settings(
                bootstrap_servers=address,
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="OAUTHBEARER",
                sasl_oauth_token_file=SECRET,
            )
        )
    assert "CC_SASL_OAUTH_TOKEN_FILE: cannot use the file it names: FileNotFoundError" in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "servers",
    [",", "host:port", "host:99999", "host:0", "host:-1", "good:9092,:9092", "a:1;b:2", "a:1 b:2", "a:1/", "[a]:1"],
)
def test_invalid_addresses_are_refused(servers: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CC_BOOTSTRAP_SERVERS: .* is no list of `host:port`"):
        connection_arguments(settings(bootstrap_servers=servers))


@pytest.mark.parametrize("servers", ["PLAINTEXT://host:9092", "good:9092,SASL_SSL://host:9092", "kafka://host"])
def test_address_with_a_protocol_names_the_setting_for_it(servers: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no list of `host:port` .*: leave out the protocol"):
        connection_arguments(settings(bootstrap_servers=servers))


@pytest.mark.parametrize("servers", [f"u:{SECRET}@host:9092", f"a:1,SASL_SSL://u:{SECRET}@host:9092"])
def test_password_in_an_address_is_not_shown(servers: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CC_BOOTSTRAP_SERVERS: .*\.\.\.@host:9092") as refused:
        connection_arguments(settings(bootstrap_servers=servers))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "servers",
    ["host", "host:9092", "a:1,b:2", "a:1, b:2", "kafka_1.a-b.example:1", "[::1]:9092", "::1", "127.0.0.1:65535"],
)
def test_valid_addresses_pass(servers: str) -> None:
    assert connection_arguments(settings(bootstrap_servers=servers))["bootstrap_servers"] == servers


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (errors.ProducerFenced(), FencedError, "another worker"),
        (errors.InvalidProducerEpoch(), FencedError, "another worker"),
        (errors.SaslAuthenticationFailed(), ConfigurationError, "CC_SASL_PASSWORD"),
        (errors.UnsupportedSaslMechanismError(), ConfigurationError, "CC_SASL_MECHANISM"),
        (errors.IllegalSaslStateError(), ConfigurationError, "CC_SECURITY_PROTOCOL"),
        (
            errors.TopicAuthorizationFailedError(),
            ConfigurationError,
            "Read and Write on the state, transitions and dead letters topics",
        ),
        (errors.GroupAuthorizationFailedError(), ConfigurationError, "Read on the group of CC_GROUP_ID"),
        (
            errors.TransactionalIdAuthorizationFailed(),
            ConfigurationError,
            "transactional ids that begin with CC_GROUP_ID",
        ),
        (errors.ClusterAuthorizationFailedError(), ConfigurationError, "IdempotentWrite"),
        (errors.UnsupportedVersionError(), ConfigurationError, "too old"),
        (errors.IncompatibleBrokerVersion(), ConfigurationError, "too old"),
        (errors.MessageSizeTooLargeError(), ConfigurationError, "CC_BATCH_BYTES_MAX"),
        (errors.RecordListTooLargeError(), ConfigurationError, "CC_BATCH_BYTES_MAX"),
        (errors.InvalidTimestampError(), ConfigurationError, "message.timestamp.before.max.ms"),
        (errors.InvalidTransactionTimeout(), ConfigurationError, "CC_COMMIT_TIMEOUT_S"),
        (errors.InvalidSessionTimeoutError(), ConfigurationError, "CC_SESSION_TIMEOUT_MS"),
        (errors.InconsistentGroupProtocolError(), ConfigurationError, "CC_GROUP_ID"),
        (errors.UnsupportedCodecError(), ConfigurationError, "cramjam"),
        (ssl.SSLCertVerificationError(), Renewable, "CC_SSL_CA_FILE"),
        (expired_certificate(), Expired, "have it renewed"),
        (refused_certificate(), Renewable, "CC_SSL_CERT_FILE"),
        (errors.UnknownTopicOrPartitionError(), RetriableError, "conversation-consumer topics"),
        (errors.KafkaConnectionError(), RetriableError, "KafkaConnectionError"),
        (errors.RequestTimedOutError(), RetriableError, "RequestTimedOutError"),
        (errors.NotLeaderForPartitionError(), RetriableError, "NotLeaderForPartitionError"),
        (errors.OutOfOrderSequenceNumber(), RetriableError, "OutOfOrderSequenceNumber"),
        (TimeoutError(), RetriableError, "TimeoutError"),
        (ConnectionResetError(), RetriableError, "ConnectionResetError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_error_is_mapped_to_a_kind_and_a_remedy(error: Exception, kind: type[Exception], says: str) -> None:
    mapped = map_error(error, "doing this")
    assert type(mapped) is kind
    assert str(mapped).startswith("doing this: ")
    assert says in str(mapped)


@pytest.mark.parametrize(
    "kind", [errors.KafkaError, errors.ProducerFenced, errors.SaslAuthenticationFailed, OSError, TimeoutError]
)
def test_text_of_an_error_is_not_passed_on(kind: type[Exception]) -> None:
    assert SECRET not in str(map_error(kind(SECRET), "doing this"))


async def test_port_without_a_server_is_unreachable() -> None:
    with socket.socket() as bound:  # so that no other process listens on it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        error = await find_connection_error(settings(bootstrap_servers=address))
    assert isinstance(error, RetriableError)
    assert str(error) == f"connecting to {address}: ConnectionRefusedError"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Renewable("x"), RetriableError),
        (ConfigurationError("x"), ConfigurationError),
        (RetriableError("x"), RetriableError),
    ],
)
def test_error_that_new_files_fix_does_not_end_a_worker(error: ExternalError, kind: type[ExternalError]) -> None:
    """It ends the start of one."""
    mapped = as_retriable(error)
    assert (type(mapped), str(mapped)) == (kind, "x")
