"""The permissions that the service needs, and which of them are missing.

Nothing is tried out. A broker reports which operations on a topic or a group a user may perform. For a transactional id
it reports only whether the user may describe it, so a user who may not write with it fails when `run` opens its first
lane.
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

from consumer.kafka import coordinator
from consumer.kafka.errors import USER
from consumer.kafka.producer import transactional_id
from consumer.kafka.protocol import AuthorizedGroupsRequest, TopicsRequest
from consumer.kafka_commands import kafka_command
from consumer.settings import Settings

TOPIC: Final = "topic"
GROUP: Final = "group"
TRANSACTIONAL_ID: Final = "transactional-id"

_OPERATION_BITS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}  # as in Kafka's AclOperation
_NOTHING, _EVERYTHING = 0, -1
_UNKNOWN = -(2**31)
"""What a broker sends that was not asked to report operations, or cannot."""


class Grant(Struct, frozen=True):
    """Operations on one resource. Read and Write include Describe."""

    resource: str
    name: str
    setting: str
    """The setting that the name is from."""
    operations: tuple[str, ...]
    is_prefix: bool = False

    @property
    def what(self) -> str:
        """The resource and the operations, for messages."""
        kind = "transactional ids that begin with" if self.is_prefix else self.resource
        return f"{kind} {self.name!r} ({self.setting}): {' and '.join(self.operations)}"

    def command(self, settings: Settings) -> str:
        """The command that grants it, in backticks. If no setting names the user, it says who NAME is."""
        has_name = settings.security_protocol.startswith("SASL") and settings.sasl_mechanism != "OAUTHBEARER"
        user = settings.sasl_username if has_name else ""
        options = [f"--operation {operation}" for operation in self.operations]
        options += [f"--{self.resource} {shlex.quote(self.name)}"]
        options += ["--resource-pattern-type prefixed"] if self.is_prefix else []
        arguments = f"--add --allow-principal User:{shlex.quote(user) if user else 'NAME'} {' '.join(options)}"
        command = kafka_command(settings, "kafka-acls", arguments)
        return command if user else f"{command}, where NAME is {USER}"

    def remedy(self, settings: Settings) -> str:
        """What is missing, and the command that grants it."""
        return f"{self.what} not allowed: {self.command(settings)}"


def grants(settings: Settings) -> list[Grant]:
    """Everything that `run` needs, and nothing else.

    With `exactly_once` it reads its outputs, to find out how a transaction ended whose markers brokers have lost.
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


def autoscaler_grants(settings: Settings) -> list[Grant]:
    """Everything that an autoscaler needs to compute the lag: it sees offsets and no records."""
    return [
        Grant(TOPIC, settings.input_topic, "CC_INPUT_TOPIC", ("Describe",)),
        Grant(GROUP, settings.group_id, "CC_GROUP_ID", ("Describe",)),
    ]


async def find_missing(client: AIOKafkaClient, settings: Settings) -> list[Grant]:
    """The operations of `grants` that the broker does not allow. Raises KafkaError; the caller bounds it.

    A broker that is too old to report operations counts as one that allows everything.
    """
    needed = grants(settings)
    allowed = await _find_allowed_on_topics(client, [grant.name for grant in needed if grant.resource == TOPIC])
    allowed[GROUP, settings.group_id] = await _find_allowed_on_group(client, settings.group_id)
    for grant in needed:
        if grant.resource == TRANSACTIONAL_ID:
            operations = await _find_allowed_on_transactional_id(client, f"{grant.name}0")
            allowed[TRANSACTIONAL_ID, grant.name] = operations
    missing = []
    for grant in needed:
        bits = allowed.get((grant.resource, grant.name), _EVERYTHING)
        if lacking := tuple(name for name in grant.operations if not allows(bits, name)):
            missing.append(Grant(grant.resource, grant.name, grant.setting, lacking, grant.is_prefix))
    return missing


def allows(operations: int, name: str) -> bool:
    """Whether a response's bit field of authorized operations includes one. An unknown bit field includes all."""
    return operations == _UNKNOWN or bool(operations >> _OPERATION_BITS[name] & 1)


async def _find_allowed_on_topics(client: AIOKafkaClient, names: Iterable[str]) -> dict[tuple[str, str], int]:
    """The operations that the user may perform on each topic; a topic that does not exist is left out."""
    try:
        metadata = await client.send(client.get_random_node(), TopicsRequest(names))
    except NotImplementedError:  # the broker does not speak this version
        return {}
    allowed: dict[tuple[str, str], int] = {}
    for error_code, name, _, _, _, operations, _ in metadata.topics:
        if error_code == TopicAuthorizationFailedError.errno:
            allowed[TOPIC, name] = _NOTHING
        elif not error_code:
            allowed[TOPIC, name] = operations
    return allowed


async def _find_allowed_on_group(client: AIOKafkaClient, group_id: str) -> int:
    try:
        description = await coordinator.Group(client, group_id).ask(AuthorizedGroupsRequest([group_id]))
    except GroupAuthorizationFailedError:
        return _NOTHING
    except NotImplementedError:  # the broker does not speak this version
        return _EVERYTHING
    error_code, *_, operations = description.groups[0]
    return _NOTHING if error_code == GroupAuthorizationFailedError.errno else int(operations)


async def _find_allowed_on_transactional_id(client: AIOKafkaClient, transactional_id: str) -> int:
    try:
        await coordinator.find(client, CoordinationType.TRANSACTION, transactional_id)
    except TransactionalIdAuthorizationFailed:
        return _NOTHING
    return _EVERYTHING
