"""Arguments for Kafka's clients, and whose fault an error is: pure, except for a port that nobody listens on."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient

from consumer.adapters.kafka.connection import connection_arguments, connection_fault
from consumer.adapters.kafka.faults import Expired, Renewable, outlasted, world_error
from consumer.runtime.ports import Fenced, Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings

SECRET = "hunter2-marked"


def expired_certificate() -> ssl.SSLError:
    """As Python raises it when the other side's certificate has expired."""
    error = ssl.SSLCertVerificationError()
    error.verify_code = 10
    return error


def refused_certificate() -> errors.KafkaConnectionError:
    """As aiokafka raises it when a broker refuses ours, after the handshake."""
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


def test_a_token_takes_the_place_of_a_password() -> None:
    arguments = connection_arguments(
        settings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file="/run/token")
    )
    assert isinstance(arguments["sasl_oauth_token_provider"], AbstractTokenProvider)
    assert "sasl_plain_password" not in arguments


def test_clients_share_a_context() -> None:
    secured = settings(security_protocol="SSL")
    assert connection_arguments(secured)["ssl_context"] is connection_arguments(secured)["ssl_context"]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
async def test_every_client_takes_the_arguments(protocol: str) -> None:
    arguments = connection_arguments(settings(security_protocol=protocol, sasl_username="u", sasl_password=SECRET))
    for client in (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient):
        client(**arguments)


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_an_authority_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Misfit, match=r"CC_SSL_CA_FILE: cannot use .*ca\.pem.*: name a readable PEM file"):
        connection_arguments(settings(security_protocol="SSL", ssl_ca_file=str(path)))


def test_a_client_certificate_that_cannot_be_used_is_named_without_its_password(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(Misfit, match=r"CC_SSL_CERT_FILE and CC_SSL_KEY_FILE: cannot use .*CC_SSL_KEY_PASSWORD") as told:
        connection_arguments(
            settings(
                security_protocol="SSL",
                ssl_cert_file=str(tmp_path / "cert.pem"),
                ssl_key_file=str(tmp_path / "key.pem"),
                ssl_key_password=SECRET,
            )
        )
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "servers",
    [",", "host:port", "host:99999", "host:0", "host:-1", "good:9092,:9092", "a:1;b:2", "a:1 b:2", "a:1/", "[a]:1"],
)
def test_addresses_that_are_none_are_refused(servers: str) -> None:
    with pytest.raises(Misfit, match=r"CC_BOOTSTRAP_SERVERS: .* is no list of `host:port`"):
        connection_arguments(settings(bootstrap_servers=servers))


@pytest.mark.parametrize("servers", ["PLAINTEXT://host:9092", "good:9092,SASL_SSL://host:9092", "kafka://host"])
def test_an_address_with_a_protocol_says_where_that_belongs(servers: str) -> None:
    with pytest.raises(Misfit, match=r"is no list of `host:port` .*: leave out the protocol"):
        connection_arguments(settings(bootstrap_servers=servers))


@pytest.mark.parametrize("servers", [f"u:{SECRET}@host:9092", f"a:1,SASL_SSL://u:{SECRET}@host:9092"])
def test_a_password_in_an_address_is_not_told(servers: str) -> None:
    with pytest.raises(Misfit, match=r"CC_BOOTSTRAP_SERVERS: .*\.\.\.@host:9092") as told:
        connection_arguments(settings(bootstrap_servers=servers))
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "servers",
    ["host", "host:9092", "a:1,b:2", "a:1, b:2", "kafka_1.a-b.example:1", "[::1]:9092", "::1", "127.0.0.1:65535"],
)
def test_addresses_that_aiokafka_understands_pass(servers: str) -> None:
    assert connection_arguments(settings(bootstrap_servers=servers))["bootstrap_servers"] == servers


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (errors.ProducerFenced(), Fenced, "another worker"),
        (errors.InvalidProducerEpoch(), Fenced, "another worker"),
        (errors.SaslAuthenticationFailed(), Misfit, "CC_SASL_PASSWORD"),
        (errors.UnsupportedSaslMechanismError(), Misfit, "CC_SASL_MECHANISM"),
        (errors.IllegalSaslStateError(), Misfit, "CC_SECURITY_PROTOCOL"),
        (
            errors.TopicAuthorizationFailedError(),
            Misfit,
            "Read and Write on the state, transitions and dead letters topics",
        ),
        (errors.GroupAuthorizationFailedError(), Misfit, "Read on the group of CC_GROUP_ID"),
        (errors.TransactionalIdAuthorizationFailed(), Misfit, "transactional ids that begin with CC_GROUP_ID"),
        (errors.ClusterAuthorizationFailedError(), Misfit, "IdempotentWrite"),
        (errors.UnsupportedVersionError(), Misfit, "too old"),
        (errors.IncompatibleBrokerVersion(), Misfit, "too old"),
        (errors.MessageSizeTooLargeError(), Misfit, "CC_BATCH_BYTES_MAX"),
        (errors.RecordListTooLargeError(), Misfit, "CC_BATCH_BYTES_MAX"),
        (errors.InvalidTimestampError(), Misfit, "message.timestamp.before.max.ms"),
        (errors.InvalidTransactionTimeout(), Misfit, "CC_TRANSACTION_TIMEOUT_MS"),
        (errors.InvalidSessionTimeoutError(), Misfit, "CC_SESSION_TIMEOUT_MS"),
        (errors.InconsistentGroupProtocolError(), Misfit, "CC_GROUP_ID"),
        (errors.UnsupportedCodecError(), Misfit, "cramjam"),
        (ssl.SSLCertVerificationError(), Renewable, "CC_SSL_CA_FILE"),
        (expired_certificate(), Expired, "have it renewed"),
        (refused_certificate(), Renewable, "CC_SSL_CERT_FILE"),
        (errors.UnknownTopicOrPartitionError(), Unreachable, "conversation-consumer topics"),
        (errors.KafkaConnectionError(), Unreachable, "KafkaConnectionError"),
        (errors.RequestTimedOutError(), Unreachable, "RequestTimedOutError"),
        (errors.NotLeaderForPartitionError(), Unreachable, "NotLeaderForPartitionError"),
        (errors.OutOfOrderSequenceNumber(), Unreachable, "OutOfOrderSequenceNumber"),
        (TimeoutError(), Unreachable, "TimeoutError"),
        (ConnectionResetError(), Unreachable, "ConnectionResetError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_says_whose_fault_it_is_and_what_to_do(error: Exception, kind: type[Exception], says: str) -> None:
    told = world_error(error, "doing this")
    assert type(told) is kind
    assert str(told).startswith("doing this: ")
    assert says in str(told)


@pytest.mark.parametrize(
    "kind", [errors.KafkaError, errors.ProducerFenced, errors.SaslAuthenticationFailed, OSError, TimeoutError]
)
def test_an_errors_own_text_is_never_passed_on(kind: type[Exception]) -> None:
    assert SECRET not in str(world_error(kind(SECRET), "doing this"))


async def test_a_port_that_nobody_listens_on_is_unreachable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        fault = await connection_fault(settings(bootstrap_servers=address))
    assert isinstance(fault, Unreachable)
    assert str(fault) == f"connecting to {address}: ConnectionRefusedError"


@pytest.mark.parametrize(
    ("fault", "kind"), [(Renewable("x"), Unreachable), (Misfit("x"), Misfit), (Unreachable("x"), Unreachable)]
)
def test_while_running_new_files_may_mend_what_ends_a_start(fault: WorldError, kind: type[WorldError]) -> None:
    outlasting = outlasted(fault)
    assert (type(outlasting), str(outlasting)) == (kind, "x")
