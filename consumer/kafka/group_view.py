"""The members of the consumer group, with their partitions and the addresses of their query ports.

1. A member tells its address in the user data of its subscription, as `application.server` of Kafka Streams does. The
   group's coordinator keeps it and gives it to everybody who may describe the group, so neither the leader nor the
   assignment has a part in it: members of another version, or of another client, do no harm.
2. A static member that comes back with another address causes no rebalance. Its coordinator describes it with the new
   address all the same.
3. While a group rebalances its coordinator describes no members. The last ones stay in use, as what they are.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    for_code,
)
from msgspec import Struct

from consumer.kafka.coordinator import Group as GroupCoordinator
from consumer.kafka.errors import map_error
from consumer.kafka.protocol import AuthorizedGroupsRequest
from consumer.kafka.side_client import SideClient
from consumer.kafka.timeouts import wait
from consumer.query.fleet import Group, Member
from consumer.settings import Settings, parse_address
from consumer.worker.ports import ExternalError

_DESCRIBE_S: Final = 2.0
_FRESH_S: Final = 1.0
_USER_DATA_BYTES_MAX: Final = 512
_STABLE: Final = "Stable"
_NOT_DESCRIBED: Final = "the group could not be described"


class _UserData(Struct, frozen=True):
    query: str


_USER_DATA: Final = msgspec.json.Decoder(_UserData)


def advertising(address: Callable[[], str]) -> type[RoundRobinPartitionAssignor]:
    """The assignor, whose members tell `address` whenever they join the group; empty tells nothing."""

    class Advertising(RoundRobinPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
        @classmethod
        def metadata(cls, topics: Sequence[str]) -> Any:
            subscription = super().metadata(topics)
            user_data = msgspec.json.encode(_UserData(address())) if address() else b""
            return ConsumerProtocolMemberMetadata(subscription.version, subscription.subscription, user_data)

    return Advertising


class KafkaGroupView:
    """Implements `query.fleet.GroupView`. `identity` gives the own member id and the generation."""

    def __init__(
        self, settings: Settings, identity: Callable[[], tuple[str, int]], partitions: Callable[[], int | None]
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._client = SideClient(settings)
        self._coordinator: GroupCoordinator | None = None
        self._describing = asyncio.Lock()
        self._described: tuple[float, tuple[str, int], Group] | None = None
        """When and as which member the group was described, by the monotonic clock, and what was found."""
        self._members: Sequence[Member] = ()
        """Those of the last stable description."""
        self.partitions = partitions

    def generation(self) -> int:
        """See `GroupView.generation`."""
        return self._identity()[1]

    async def describe(self) -> Group:
        """See `GroupView.describe`. Asks the brokers once a second at most, and after each rebalance."""
        async with self._describing:
            identity = self._identity()
            if self._described is None or not self._is_fresh(*self._described[:2]):
                problem = await self._read_members()
                group = Group(identity[0], self._members, problem)
                self._described = time.monotonic(), identity, group
            return self._described[2]

    async def stop(self) -> None:
        """Close the connections, within a bounded time."""
        await self._client.stop()

    def _is_fresh(self, described_s: float, identity: tuple[str, int]) -> bool:
        return time.monotonic() - described_s <= _FRESH_S and identity == self._identity()

    async def _read_members(self) -> str:
        """Read the members again; returns why they may be outdated, empty if they are not."""
        try:
            state, members = await wait(_DESCRIBE_S, self._ask())
        except (NotImplementedError, IncompatibleBrokerVersion):  # the embedded broker: this worker is alone on it
            return ""
        except TimeoutError:
            return f"{_NOT_DESCRIBED} within {_DESCRIBE_S:g} s"
        except ExternalError as error:
            return f"{_NOT_DESCRIBED}: {error}"
        except (NodeNotReadyError, KafkaConnectionError, OSError) as error:
            return f"{_NOT_DESCRIBED}: its coordinator does not answer ({type(error).__name__})"
        except KafkaError as error:
            return str(map_error(error, _NOT_DESCRIBED))
        if state != _STABLE:
            return f"the group is not stable ({state})"
        self._members = members
        return ""

    async def _ask(self) -> tuple[str, list[Member]]:
        client = await self._client.connect()
        if self._coordinator is None:
            self._coordinator = GroupCoordinator(client, self._settings.group_id)
        response = await self._coordinator.ask(AuthorizedGroupsRequest([self._settings.group_id]))
        error_code, _, state, _, _, members, _ = response.groups[0]
        if error_code:
            raise for_code(error_code)
        return state, [
            Member(member_id, _read_address(metadata), _read_partitions(assignment, self._settings.input_topic))
            for member_id, _, _, _, metadata, assignment in members
        ]


def _read_address(metadata: bytes) -> str:
    """The address that a member tells in its subscription; empty if it tells none that could be one."""
    try:
        user_data = ConsumerProtocolMemberMetadata.decode(metadata).user_data or b""
        address = _USER_DATA.decode(user_data).query if len(user_data) <= _USER_DATA_BYTES_MAX else ""
    except (ValueError, msgspec.MsgspecError):
        return ""
    parsed = parse_address(address)
    return address if parsed is not None and parsed[1] is not None else ""


def _read_partitions(assignment: bytes, topic: str) -> tuple[int, ...]:
    """The partitions of a topic that a member is assigned."""
    try:
        tps = ConsumerProtocolMemberAssignment.decode(assignment).partitions() if assignment else []
    except ValueError:
        return ()
    return tuple(sorted(tp.partition for tp in tps if tp.topic == topic))
