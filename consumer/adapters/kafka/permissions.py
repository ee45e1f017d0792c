"""The permissions that the service needs, each of them, and finding out which are missing without using any.

A broker tells what a user may do with a topic or a group. Of a transactional id it only tells whether the user may
know of it, so a user with Describe alone is found out when `run` opens its first lane.
"""

import shlex
from collections.abc import Iterable
from typing import Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from msgspec import Struct

from consumer.adapters.kafka import coordinator
from consumer.adapters.kafka.batches import transactional_id
from consumer.adapters.kafka.faults import USER
from consumer.adapters.kafka.finding import Finding
from consumer.adapters.kafka.requests import AuthorizedGroupsRequest, TopicsRequest
from consumer.runtime.kafka_tools import kafka_command
from consumer.runtime.settings import Settings

TOPIC: Final = "topic"
GROUP: Final = "group"
TRANSACTIONAL_ID: Final = "transactional-id"

_OPERATION_BITS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}  # as in Kafka's AclOperation
_NOTHING, _EVERYTHING = 0, -1
_NOT_TOLD = -(2**31)


class Grant(Struct, frozen=True):
    """Operations on one resource. Read and Write hold Describe."""

    resource: str
    name: str
    setting: str
    """The setting that the name is from."""
    operations: tuple[str, ...]
    is_prefix: bool = False

    @property
    def what(self) -> str:
        """The resource in words, and the operations."""
        kind = "transactional ids that begin with" if self.is_prefix else self.resource
        return f"{kind} {self.name!r} ({self.setting}): {' and '.join(self.operations)}"

    def remedy(self, settings: Settings) -> str:
        """What is missing, and the command that grants it."""
        return self.check(settings, is_missing=True).told

    def check(self, settings: Settings, *, is_missing: bool) -> Finding:
        """Whether it is there, and if not the command that grants it."""
        if not is_missing:
            return Finding("permissions", "pass", f"{self.what} allowed")
        has_name = settings.security_protocol.startswith("SASL") and settings.sasl_mechanism != "OAUTHBEARER"
        user = settings.sasl_username if has_name else ""
        options = [f"--operation {each}" for each in self.operations]
        options += [f"--{self.resource} {shlex.quote(self.name)}"]
        options += ["--resource-pattern-type prefixed"] if self.is_prefix else []
        arguments = f"--add --allow-principal User:{shlex.quote(user) if user else 'NAME'} {' '.join(options)}"
        command = kafka_command(settings, "kafka-acls", arguments)
        named = "" if user else f", where NAME is {USER}"
        return Finding("permissions", "fail", f"{self.what} not allowed", f"{command}{named}")


def grants(settings: Settings) -> list[Grant]:
    """Everything that `run` needs, and nothing else.

    Exactly once, it reads its outputs to find out how a transaction ended of which brokers have lost markers.
    """
    outputs = ("Read", "Write") if settings.delivery == "exactly_once" else ("Write",)
    needed = [
        Grant(TOPIC, settings.input_topic, "CC_INPUT_TOPIC", ("Read", "DescribeConfigs")),
        Grant(TOPIC, settings.state_topic, "CC_STATE_TOPIC", ("Read", "Write", "DescribeConfigs")),
        Grant(TOPIC, settings.transitions_topic, "CC_TRANSITIONS_TOPIC", (*outputs, "DescribeConfigs")),
        Grant(TOPIC, settings.dead_letters_topic, "CC_DEAD_LETTERS_TOPIC", (*outputs, "DescribeConfigs")),
        Grant(GROUP, settings.group_id, "CC_GROUP_ID", ("Read",)),
    ]
    if settings.delivery == "exactly_once":
        prefix = transactional_id(settings, "")
        names = "CC_GROUP_ID, CC_INPUT_TOPIC"
        needed.append(Grant(TRANSACTIONAL_ID, prefix, names, ("Write",), is_prefix=True))
    return needed


def checks(settings: Settings, lacking: list[Grant]) -> list[Finding]:
    """A finding for each grant that is needed: what is lacking of it, or that all of it is there."""
    lacks = {(each.resource, each.name): each for each in lacking}
    return [
        (lacked or each).check(settings, is_missing=lacked is not None)
        for each in grants(settings)
        for lacked in [lacks.get((each.resource, each.name))]
    ]


async def missing(client: AIOKafkaClient, settings: Settings) -> list[Grant]:
    """What of `grants` the broker does not allow. Raises KafkaError; may wait for as long as the cluster is starting.

    A broker that cannot be asked, for it is too old, allows everything as far as is told here.
    """
    needed = grants(settings)
    allowed = await _topics(client, [each.name for each in needed if each.resource == TOPIC])
    allowed[GROUP, settings.group_id] = await _group(client, settings.group_id)
    for each in needed:
        if each.resource == TRANSACTIONAL_ID:
            allowed[TRANSACTIONAL_ID, each.name] = await _transactional_id(client, f"{each.name}0")
    found = []
    for each in needed:
        operations = tuple(
            name for name in each.operations if not allows(allowed.get((each.resource, each.name), _EVERYTHING), name)
        )
        if operations:
            found.append(Grant(each.resource, each.name, each.setting, operations, each.is_prefix))
    return found


def allows(operations: int, name: str) -> bool:
    """Whether an answer's bit field of authorized operations holds one of them. A broker that does not tell allows."""
    return bool(_told(operations) >> _OPERATION_BITS[name] & 1)


def _told(operations: int) -> int:
    return _EVERYTHING if operations == _NOT_TOLD else operations


async def _topics(client: AIOKafkaClient, names: Iterable[str]) -> dict[tuple[str, str], int]:
    """What the user may do with topics: nothing, if not even see one. Those that do not exist are not told of."""
    request = TopicsRequest(names)
    try:
        answer = await client.send(client.get_random_node(), request)
    except NotImplementedError:  # the broker does not speak this version
        return {}
    told: dict[tuple[str, str], int] = {}
    for error_code, name, _, _, _, operations, _ in answer.topics:
        if error_code == TopicAuthorizationFailedError.errno:
            told[TOPIC, name] = _NOTHING
        elif not error_code:
            told[TOPIC, name] = _told(operations)
    return told


async def _group(client: AIOKafkaClient, group_id: str) -> int:
    try:
        answer = await coordinator.Group(client, group_id).ask(AuthorizedGroupsRequest([group_id]))
    except GroupAuthorizationFailedError:
        return _NOTHING
    except NotImplementedError:  # the broker does not speak this version
        return _EVERYTHING
    error_code, *_, operations = answer.groups[0]
    return _NOTHING if error_code == GroupAuthorizationFailedError.errno else _told(operations)


async def _transactional_id(client: AIOKafkaClient, transactional_id: str) -> int:
    try:
        await coordinator.find(client, CoordinationType.TRANSACTION, transactional_id)
    except TransactionalIdAuthorizationFailed:
        return _NOTHING
    return _EVERYTHING
