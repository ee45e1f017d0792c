"""The requests of a transaction are sent once: an answer that does not come ends the producer.

A request that was not answered is lost, or still on its way. The broker distinguishes a late one from a new one only by
the producer's epoch, which stays the same from one transaction to the next; records have sequence numbers beside it,
these requests have none. Sent again as aiokafka does, an EndTxn may be answered, and its first copy then arrive amid
the next transaction: what that has written so far is committed without its rest. A new producer has a new epoch, and
whatever comes late from the one before is refused. (Kafka's own remedy is a new epoch per transaction, KIP-890, of
which aiokafka knows nothing.)

Two requests may still come late, and cost time but no data. A late AddPartitionsToTxn begins a transaction that is
never ended: the coordinator aborts it at its timeout and fences an idle lane by that. A late InitProducerId fences the
owner. Either way the lane is fenced at its next commit and opens again after one session timeout (45 s by default).
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
"""AddPartitionsToTxn is sent again: a late one writes nothing. As the first request of a transaction it is the one that
meets a connection which the broker ends, because its token has expired."""


class AnswerLostError(Exception):
    """Nobody knows what became of a request. No KafkaError, for that is what aiokafka tries again after."""


def send_once(producer: AIOKafkaProducer) -> None:
    """Make a producer fail for good where it would send such a request again."""
    client = producer.client
    send = client.send

    async def sent(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        try:
            return await send(node_id, request, group=group)
        except NodeNotReadyError:  # there was no connection to send it by
            raise
        except KafkaError as error:
            if isinstance(request, _SENT_ONCE):
                raise AnswerLostError(type(request).__name__) from error
            raise

    client.send = sent
