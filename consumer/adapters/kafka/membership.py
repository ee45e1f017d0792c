"""Whether the group has this worker as a member.

Facts of aiokafka 0.14 that shape it: an error of the membership is told by the next fetch, and a member that was not
let back in has nothing to fetch and holds still until somebody asks for it; two members with one static id put each
other out with every heartbeat, and come back under new member ids for ever.
"""

import time
from collections import deque
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest

from consumer.adapters.kafka.faults import world_error
from consumer.runtime.ports import Misfit, WorldError
from consumer.runtime.settings import Settings

COORDINATOR_MOVED = {NotCoordinatorForGroupError.errno, GroupCoordinatorNotAvailableError.errno}
_MEMBER = {NoError.errno, RebalanceInProgressError.errno}
_MEMBER_IDS_MAX = 6
_RIVALRY_S = 60.0
"""So many ids in so short a time are no outages of this worker, which cost it one each."""


class Membership:
    """That of one consumer."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._ids: deque[tuple[str, float]] = deque(maxlen=_MEMBER_IDS_MAX)
        """Those that the group gave lately, and when they were seen first."""

    async def confirm(self) -> None:
        """Ask the group. Raises KafkaError if it does not know the member; the caller bounds the wait."""
        coordinator = self._coordinator
        await coordinator.ensure_coordinator_known()
        request = HeartbeatRequest(self._settings.group_id, coordinator.generation, coordinator.member_id)
        code = (await coordinator._send_req(request)).error_code  # noqa: SLF001 - as below
        if code in COORDINATOR_MOVED:
            coordinator.coordinator_dead()
        if code not in _MEMBER:
            raise for_code(code)

    def fault(self) -> WorldError | None:
        """What keeps the member from being one, None if nothing is known to. Asks for a way back where there is one."""
        coordinator = self._coordinator
        if coordinator is None:  # not started yet
            return None
        if coordinator._coordination_task.done():  # noqa: SLF001 - as below
            return Misfit("the member of the consumer group has ended by itself")
        try:
            coordinator.check_errors()
        except KafkaError as error:
            coordinator.request_rejoin()  # its heartbeat may have ended by the error
            return world_error(error, "staying in the consumer group")
        return self._rivalry(coordinator.member_id)

    def _rivalry(self, member_id: str) -> Misfit | None:
        """Whether another worker has the same static id."""
        if not self._settings.group_instance_id or not member_id:
            return None
        now_s = time.monotonic()
        if not self._ids or self._ids[-1][0] != member_id:
            self._ids.append((member_id, now_s))
        patience_s = max(_RIVALRY_S, _MEMBER_IDS_MAX * 2 * self._settings.heartbeat_interval_ms / 1_000)
        if len(self._ids) < _MEMBER_IDS_MAX or now_s - self._ids[0][1] > patience_s:
            return None
        return Misfit(
            f"another worker has the static id {self._settings.group_instance_id!r} (CC_GROUP_INSTANCE_ID): give each "
            f"its own"
        )

    @property
    def _coordinator(self) -> Any:
        return self._consumer._coordinator  # noqa: SLF001 - nothing public gives it
