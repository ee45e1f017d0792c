"""A request of a transaction is not sent again within one epoch."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.errors import map_error
from consumer.kafka.patches.lost_responses import ResponseLostError, fail_on_lost_response

HARMLESS_LATE = [
    ProduceRequest(transactional_id="t", required_acks=-1, timeout=1, topics=[]),
    InitProducerIdRequest(transactional_id="t", transaction_timeout_ms=1),
    AddPartitionsToTxnRequest("t", 1, 0, []),
]
HARMFUL_LATE = [
    AddOffsetsToTxnRequest("t", 1, 0, "g"),
    TxnOffsetCommitRequest("t", "g", 1, 0, []),
    EndTxnRequest("t", 1, 0, transaction_result=True),
]


class Client:
    """Has the same response to every request."""

    def __init__(self, response: str | Exception) -> None:
        self._response = response

    async def send(self, *_: object, **__: object) -> str:
        if isinstance(self._response, Exception):
            raise self._response
        return self._response


class Producer:
    def __init__(self, response: str | Exception) -> None:
        self.client = Client(response)


async def send(request: Any, response: str | Exception) -> Any:
    producer = Producer(response)
    fail_on_lost_response(producer)
    return await producer.client.send(1, request, group=0)


@pytest.mark.parametrize("request_", HARMFUL_LATE, ids=lambda request: type(request).__name__)
@pytest.mark.parametrize("lost", [RequestTimedOutError(), KafkaConnectionError()])
async def test_lost_response_is_an_error_without_retry(request_: Any, lost: Exception) -> None:
    """aiokafka retries after a KafkaError only."""
    with pytest.raises(ResponseLostError, match=type(request_).__name__) as caught:
        await send(request_, lost)
    assert not isinstance(caught.value, KafkaError)


@pytest.mark.parametrize("request_", HARMLESS_LATE + HARMFUL_LATE, ids=lambda request: type(request).__name__)
async def test_request_that_was_not_sent_may_be_sent_again(request_: Any) -> None:
    with pytest.raises(NodeNotReadyError):
        await send(request_, NodeNotReadyError())


@pytest.mark.parametrize("request_", HARMLESS_LATE, ids=lambda request: type(request).__name__)
async def test_request_that_is_harmless_late_may_be_sent_again(request_: Any) -> None:
    with pytest.raises(RequestTimedOutError):
        await send(request_, RequestTimedOutError())


@pytest.mark.parametrize("request_", HARMLESS_LATE + HARMFUL_LATE, ids=lambda request: type(request).__name__)
async def test_response_is_returned(request_: Any) -> None:
    assert await send(request_, "response") == "response"


def test_message_names_the_lost_response() -> None:
    """And not the error in which aiokafka wraps it."""
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = ResponseLostError("EndTxnRequest")
    assert str(map_error(error, "committing")) == "committing: ResponseLostError"


async def test_aiokafka_sends_by_the_patched_client() -> None:
    """A real producer at the embedded broker sends its requests through the attribute that the patch replaces."""
    requests = []
    with EmbeddedBroker() as broker:
        broker.create_topics(["in", "out"])
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id="t")
        send_any = producer.client.send

        async def record(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
            requests.append(type(request))
            return await send_any(node_id, request, group=group)

        producer.client.send = record
        fail_on_lost_response(producer)
        async with asyncio.timeout(60), producer, producer.transaction():
            await producer.send_and_wait("out", b"value")
            await producer.send_offsets_to_transaction({TopicPartition("in", 0): 1}, "g")
    assert {type(request) for request in HARMLESS_LATE + HARMFUL_LATE} <= set(requests)
