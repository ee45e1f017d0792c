"""Requests without a sequence number are not sent again within one epoch."""

from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from consumer.adapters.kafka.faults import world_error
from consumer.adapters.kafka.unanswered import AnswerLostError, send_once

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
    """Answers every request alike."""

    def __init__(self, answer: str | Exception) -> None:
        self._answer = answer

    async def send(self, *_: object, **__: object) -> str:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Producer:
    def __init__(self, answer: str | Exception) -> None:
        self.client = Client(answer)


def sending(answer: str | Exception) -> Any:
    producer = Producer(answer)
    send_once(producer)
    return producer.client.send


@pytest.mark.parametrize("request_", HARMFUL_LATE, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("lost", [RequestTimedOutError(), KafkaConnectionError()])
async def test_a_request_whose_answer_was_lost_is_an_error_that_is_not_tried_again_after(
    request_: Any, lost: Exception
) -> None:
    with pytest.raises(AnswerLostError, match=type(request_).__name__) as caught:
        await sending(lost)(1, request_, group=0)
    assert not isinstance(caught.value, KafkaError)


@pytest.mark.parametrize("request_", HARMLESS_LATE + HARMFUL_LATE, ids=lambda each: type(each).__name__)
async def test_what_was_never_sent_may_be_sent_again(request_: Any) -> None:
    with pytest.raises(NodeNotReadyError):
        await sending(NodeNotReadyError())(1, request_, group=0)


@pytest.mark.parametrize("request_", HARMLESS_LATE, ids=lambda each: type(each).__name__)
async def test_what_does_no_harm_when_it_comes_late_may_be_sent_again(request_: Any) -> None:
    with pytest.raises(RequestTimedOutError):
        await sending(RequestTimedOutError())(1, request_, group=0)


@pytest.mark.parametrize("request_", HARMLESS_LATE + HARMFUL_LATE, ids=lambda each: type(each).__name__)
async def test_answers_pass(request_: Any) -> None:
    assert await sending("answer")(1, request_, group=0) == "answer"


def test_messages_name_the_lost_answer_and_not_what_became_of_it_in_aiokafka() -> None:
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = AnswerLostError("EndTxnRequest")
    assert str(world_error(error, "committing")) == "committing: AnswerLostError"
