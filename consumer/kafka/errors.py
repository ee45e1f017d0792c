"""Errors of Kafka as the worker's own: who can fix them, and how."""

import ssl
from collections.abc import Awaitable
from typing import TypeVar

from aiokafka import errors

from consumer.core.record import Record
from consumer.kafka import tls
from consumer.kafka.markers import MarkersMissingError
from consumer.kafka.offsets import LeaderUnreachableError
from consumer.kafka.patches.decompression import BatchTooLargeError, LargeBatch
from consumer.kafka.patches.scram_iterations import ITERATIONS_MAX, ITERATIONS_MIN, ScramIterationsError
from consumer.kafka.timeouts import wait
from consumer.worker.ports import ConfigurationError, ExternalError, FencedError, RetriableError, UnreadableError

T = TypeVar("T")

USER = "the service's user (CC_SASL_USERNAME, or the subject of the token or of the client certificate)"
"""The principal that the broker sees, in words."""

_FENCED = (errors.ProducerFenced, errors.InvalidProducerEpoch)
AUTHENTICATION = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_TOO_OLD = (errors.UnsupportedVersionError, errors.IncompatibleBrokerVersion, errors.UnrecognizedBrokerVersion)
_TOO_LARGE = (errors.RecordTooLargeError, errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_GRANT = f"a permission is missing: grant {USER}"
_TOPICS_GRANT = (
    f"{_GRANT} Read on the input topic, Read and Write on the state, transitions and dead letters topics, "
    f"and DescribeConfigs on all: `conversation-consumer check` names the missing one"
)
_CREDENTIALS = (
    "the broker refused the credentials: check CC_SECURITY_PROTOCOL, CC_SASL_MECHANISM, CC_SASL_USERNAME and "
    "CC_SASL_PASSWORD"
)
_SESSION = "CC_SESSION_TIMEOUT_MS is outside the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
_TRANSACTION = (
    "the transaction timeout, which follows CC_COMMIT_TIMEOUT_S, is above the broker's transaction.max.timeout.ms: "
    "lower the one or raise the other"
)
_TIMESTAMP = (
    "the topic does not accept the timestamp of a record, which is copied unchanged: raise its "
    "message.timestamp.before.max.ms for old ones, its message.timestamp.after.max.ms for those from the future"
)
_BATCH = (
    "raise CC_DECOMPRESSED_BYTES_MAX if its producer is meant to write so much at once; else find out who writes "
    "there, and leave a batch of the input out with CC_OVERSIZED_BATCHES=dead_letter"
)
_REMEDIES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (AUTHENTICATION, _CREDENTIALS),
    ((errors.TopicAuthorizationFailedError,), _TOPICS_GRANT),
    ((errors.GroupAuthorizationFailedError,), f"{_GRANT} Read on the group of CC_GROUP_ID"),
    (
        (errors.TransactionalIdAuthorizationFailed,),
        f"{_GRANT} Write on transactional ids that begin with CC_GROUP_ID:CC_INPUT_TOPIC:",
    ),
    ((errors.ClusterAuthorizationFailedError,), f"{_GRANT} IdempotentWrite on the cluster"),
    (_TOO_OLD, "the broker is too old for this version: upgrade it"),
    (_TOO_LARGE, "a batch is too large for its topic: lower CC_BATCH_BYTES_MAX, or raise its max.message.bytes"),
    ((errors.InvalidTimestampError,), _TIMESTAMP),
    ((errors.InvalidTopicError,), "a topic's name is not valid: check CC_INPUT_TOPIC and the settings of the outputs"),
    ((errors.InvalidTransactionTimeout,), _TRANSACTION),
    ((errors.InvalidSessionTimeoutError,), _SESSION),
    (
        (errors.InconsistentGroupProtocolError,),
        "the group of CC_GROUP_ID is used by another kind of consumer: choose another id",
    ),
    ((errors.UnsupportedCodecError,), "a codec is not installed: install the locked requirements (cramjam)"),
)
"""Errors that only an operator can fix, and the remedy."""


class Expired(RetriableError):
    """A certificate or a token has expired. It is renewed without a change of settings."""


class TokenAwaited(RetriableError):
    """The provider has not issued a token yet. That heals without a change of settings."""


class Renewable(ConfigurationError):
    """A certificate, a token or a client's secret is not accepted. Its file is read again, so it may be replaced."""


def map_error(error: BaseException, doing: str) -> ExternalError:
    """Turn an error of aiokafka into one of the worker's; `doing` is what was tried, and begins the message.

    The message never contains the error's own text. A topic that the broker does not know is a RetriableError, since
    aiokafka raises the same while the broker is away.
    """
    if isinstance(error, BatchTooLargeError):
        found = _describe_batch(error.batch)
        return UnreadableError(f"{doing}: {found}: {_BATCH}", _stand_in(error.batch, found))
    # aiokafka wraps what it did not expect in a plain KafkaError.
    kind = type(error.__cause__ if type(error) is errors.KafkaError and error.__cause__ else error).__name__
    if isinstance(error, _FENCED):
        return FencedError(f"{doing}: another worker took the partition over ({kind})")
    # A broker refuses a client certificate after the handshake: aiokafka sees a connection that is closed under it.
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, ssl.SSLError) and (remedy := tls.find_remedy(cause)):
        error_class = Expired if tls.is_outdated(cause) else Renewable
        return error_class(f"{doing}: {remedy} ({type(cause).__name__})")
    if isinstance(error, ScramIterationsError):
        return ConfigurationError(
            f"{doing}: the broker asks for {error.args[0]} iterations of SCRAM, not {ITERATIONS_MIN} to "
            f"{ITERATIONS_MAX}: check that CC_BOOTSTRAP_SERVERS is the cluster, and set the user's credentials again"
        )
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return ConfigurationError(f"{doing}: {remedy} ({kind})")
    if isinstance(error, MarkersMissingError):
        return RetriableError(
            f"{doing}: the end of the last transaction has not arrived at {error.args[0]}: brokers may have lost it "
            f"(KAFKA-20734), and then the next start of the lane or command writes it again"
        )
    if isinstance(error, LeaderUnreachableError):
        return RetriableError(f"{doing}: {error.args[0]} leads the partition and cannot be reached or does not answer")
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return RetriableError(
            f"{doing}: the broker does not know the topic just now: see `conversation-consumer topics`"
        )
    return RetriableError(f"{doing}: {kind}")


def _describe_batch(batch: LargeBatch) -> str:
    return (
        f"partition {batch.partition} of {batch.topic!r} has a batch from offset {batch.begin} to {batch.end - 1} of "
        f"which {batch.compressed_bytes} bytes decompress to {batch.bytes_min} or more"
    )


def _stand_in(batch: LargeBatch, found: str) -> Record:
    excess = f"{found}, decompressed_bytes_max is {batch.bytes_max}"
    return Record(batch.topic, batch.partition, batch.end - 1, batch.timestamp_ms, None, None, (), excess)


def as_retriable(error: ExternalError) -> ExternalError:
    """The same error for a client that has been connected before: one that a new file can fix is a RetriableError."""
    return RetriableError(str(error)) if isinstance(error, Renewable) else error


async def call(timeout_s: float, awaitable: Awaitable[T], doing: str) -> T:
    """Wait for a result of aiokafka for at most `timeout_s`; `doing` as in `map_error`. Raises ExternalError."""
    try:
        return await wait(timeout_s, awaitable)
    except (errors.KafkaError, errors.IllegalOperation, TimeoutError, OSError) as error:
        raise map_error(error, doing) from error
