"""What every connection to Kafka has in common: arguments from the settings, and errors in the runtime's words."""

from typing import Any

from aiokafka import errors

from consumer.runtime.ports import Fenced, Misfit, Unreachable, WorldError
from consumer.runtime.settings import Settings


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for any aiokafka client."""
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "security_protocol": settings.security_protocol,
    }


def world_error(error: BaseException, doing: str) -> WorldError:
    """The error in the runtime's words; `doing` says what was tried."""
    told = f"{doing}: {type(error).__name__}"
    if isinstance(error, errors.ProducerFenced | errors.InvalidProducerEpoch):
        return Fenced(told)
    if isinstance(error, errors.KafkaError) and not error.retriable:
        return Misfit(told)
    return Unreachable(told)
