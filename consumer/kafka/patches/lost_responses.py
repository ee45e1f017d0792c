"""If the response to a request of a transaction is lost, the producer fails instead of sending the request again.

A request without a response was lost, or is still on its way. The broker recognises a late request by the producer's
epoch alone, which is the same for all transactions of a producer. (Records have sequence numbers as well; these
requests have none.) aiokafka would send the request again and go on. Then the first EndTxn may arrive in the middle of
the next transaction, and commit what that has written so far, without the rest. So a new producer takes over: it has a
new epoch, and the broker refuses every late request of the old one. (Kafka's own remedy is a new epoch for each
transaction, KIP-890, which aiokafka does not implement.)

Two requests are still sent again, since a late copy of them costs time but no data. A late AddPartitionsToTxn begins a
transaction that never ends; the coordinator aborts it at its timeout, which fences an idle lane. A late InitProducerId
fences the owner. Either way the lane is fenced at its next commit, and opens again after one session timeout (45 s by
default).
"""

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)

_SENT_ONCE = (AddOffsetsToTxnRequest, TxnOffsetCommitRequest, EndTxnRequest)
"""Not AddPartitionsToTxn: as the first request of a transaction it is the one that meets a connection which the broker
closes because its token has expired, and then it has to be sent again."""


class ResponseLostError(Exception):
    """A request, named by the message, may or may not have been carried out.

    It is no KafkaError, since aiokafka sends a request again after one.
    """


def fail_on_lost_response(producer: AIOKafkaProducer) -> None:
    """Make a producer fail for good where aiokafka would send a request of a transaction again.

    Forced by: aiokafka retries these requests without end, and offers no setting against it.
    """
    client = producer.client
    send_any = client.send

    async def send(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        try:
            return await send_any(node_id, request, group=group)
        except NodeNotReadyError:  # there was no connection, so the request was not sent
            raise
        except KafkaError as error:
            if isinstance(request, _SENT_ONCE):
                raise ResponseLostError(type(request).__name__) from error
            raise

    client.send = send
