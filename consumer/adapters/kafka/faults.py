"""What goes wrong with brokers, in the runtime's words: whose fault it is, and what to do."""

import ssl
from collections.abc import Awaitable
from typing import Any

from aiokafka import errors

from consumer.adapters.kafka import tls
from consumer.adapters.kafka.bounds import within
from consumer.adapters.kafka.markers import MarkersMissingError
from consumer.adapters.kafka.offsets import LeaderUnreachableError
from consumer.runtime.ports import Fenced, Misfit, Unreachable, WorldError

USER = "the service's user (CC_SASL_USERNAME, or the subject of the token or of the client certificate)"
"""Who the broker sees, in words."""

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
    "CC_TRANSACTION_TIMEOUT_MS is above the broker's transaction.max.timeout.ms: lower the one or raise the other"
)
_TIMESTAMP = (
    "the topic does not take the timestamp of a record, which stays as it was: raise its "
    "message.timestamp.before.max.ms for old ones, its message.timestamp.after.max.ms for those from the future"
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
"""What only an operator can mend, with what to do."""


class Expired(Unreachable):
    """A certificate or a token that was good for its time. It is renewed without a change of settings."""


class Renewable(Misfit):
    """Certificates or a token that do not do, but are read anew for every connection: they may be renewed meanwhile."""


def world_error(error: BaseException, doing: str) -> WorldError:
    """An error of aiokafka in the runtime's words; `doing` says what was tried. Never the error's own text.

    A topic that the broker does not know is Unreachable: aiokafka says the same when the broker is only away.
    """
    # A plain KafkaError is what aiokafka makes of anything that it did not expect.
    kind = type(error.__cause__ if type(error) is errors.KafkaError and error.__cause__ else error).__name__
    if isinstance(error, _FENCED):
        return Fenced(f"{doing}: another worker took the partition over ({kind})")
    # A broker refuses a client certificate after the handshake: aiokafka sees a connection that is closed under it.
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, ssl.SSLError) and (remedy := tls.remedy(cause)):
        fault = Expired if tls.is_time_fault(cause) else Renewable
        return fault(f"{doing}: {remedy} ({type(cause).__name__})")
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return Misfit(f"{doing}: {remedy} ({kind})")
    if isinstance(error, MarkersMissingError):
        return Unreachable(
            f"{doing}: the end of the last transaction has not arrived at {error.args[0]}: brokers may have lost it "
            f"(KAFKA-20734), and then the next start of the lane or command writes it again"
        )
    if isinstance(error, LeaderUnreachableError):
        return Unreachable(f"{doing}: {error.args[0]} leads the partition and cannot be reached or does not answer")
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return Unreachable(f"{doing}: the broker does not know the topic just now: see `conversation-consumer topics`")
    return Unreachable(f"{doing}: {kind}")


def outlasted(fault: WorldError) -> WorldError:
    """The same fault for a client that could connect once: what new files can mend is Unreachable."""
    return Unreachable(str(fault)) if isinstance(fault, Renewable) else fault


async def answered(seconds: float, doing: Awaitable[Any], what: str) -> Any:
    """What a broker answers within the time; `what` says what was tried. Raises WorldError."""
    try:
        return await within(seconds, doing)
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise world_error(error, what) from error
