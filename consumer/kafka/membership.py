"""Whether the group counts this worker as a member.

Facts of aiokafka 0.14 that shape this module:

1. It raises an error of the membership at the next fetch only. A member that was not let back in has nothing to fetch,
   and stands still until its error is asked for.
2. Of two members with the same static id each fences the other with every heartbeat. Both come back with new member
   ids, for ever.
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

from consumer.kafka.coordinator import error_codes
from consumer.kafka.errors import map_error
from consumer.kafka.patches.internals import coordinator_of, has_ended, send_to_coordinator
from consumer.settings import Settings
from consumer.worker.ports import ConfigurationError, ExternalError

_MOVED_CODES = {NotCoordinatorForGroupError.errno, GroupCoordinatorNotAvailableError.errno}
_MEMBER_CODES = {NoError.errno, RebalanceInProgressError.errno}
_MEMBER_IDS_MAX = 6
_RIVALRY_S = 60.0
"""An outage of this worker costs it one member id; so many ids in so short a time come from a rival."""


class Membership:
    """The membership of one consumer."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._ids: deque[tuple[str, float]] = deque(maxlen=_MEMBER_IDS_MAX)
        """The newest member ids, and when each was first seen by the monotonic clock."""

    def identity(self) -> tuple[str, int]:
        """The member id, empty if the group has given none, and the generation, below 0 if this is no member."""
        coordinator = coordinator_of(self._consumer)
        return ("", -1) if coordinator is None else (coordinator.member_id, coordinator.generation)

    async def ask(self, request: Any) -> Any:
        """The response of the group's coordinator. Raises KafkaError; the caller bounds it and checks error codes."""
        coordinator = coordinator_of(self._consumer)
        await coordinator.ensure_coordinator_known()
        response = await send_to_coordinator(coordinator, request)
        if error_codes(response) & _MOVED_CODES:
            coordinator.coordinator_dead()
        return response

    async def confirm(self) -> None:
        """Ask the group. Raises KafkaError if this worker is no member of it; the caller bounds it."""
        coordinator = coordinator_of(self._consumer)
        await coordinator.ensure_coordinator_known()  # before the generation is read, which may change meanwhile
        response = await self.ask(
            HeartbeatRequest(self._settings.group_id, coordinator.generation, coordinator.member_id)
        )
        if response.error_code not in _MEMBER_CODES:
            raise for_code(response.error_code)

    def find_error(self) -> ExternalError | None:
        """What ended the membership, None if nothing is known to have. Where that can pass, rejoins the group."""
        coordinator = coordinator_of(self._consumer)
        if coordinator is None:  # not started yet
            return None
        if has_ended(coordinator):
            return ConfigurationError("the member of the consumer group has ended by itself")
        try:
            coordinator.check_errors()
        except KafkaError as error:
            coordinator.request_rejoin()  # the error may have ended its heartbeat
            return map_error(error, "staying in the consumer group")
        return self._find_rival(coordinator.member_id)

    def _find_rival(self, member_id: str) -> ConfigurationError | None:
        """An error if another worker has the same static id."""
        if not self._settings.group_instance_id or not member_id:
            return None
        now_s = time.monotonic()
        if not self._ids or self._ids[-1][0] != member_id:
            self._ids.append((member_id, now_s))
        window_s = max(_RIVALRY_S, _MEMBER_IDS_MAX * 2 * self._settings.heartbeat_interval_ms / 1_000)
        if len(self._ids) < _MEMBER_IDS_MAX or now_s - self._ids[0][1] > window_s:
            return None
        return ConfigurationError(
            f"another worker has the static id {self._settings.group_instance_id!r} (CC_GROUP_INSTANCE_ID): give each "
            f"its own"
        )
