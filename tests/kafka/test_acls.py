"""The permissions that the service needs, and the message for one that is missing."""

from typing import Any

import pytest

from consumer.kafka.acls import Grant, grants
from consumer.kafka.producer import transactional_id
from consumer.settings import Settings

SECRET = "hunter2-marked"
TOOL = "kafka-acls --bootstrap-server b:1 --command-config admin.properties"


def settings(**changed: Any) -> Settings:
    return Settings(**{"bootstrap_servers": "b:1", "input_topic": "in", "group_id": "g", **changed})


def test_at_least_once_needs_less() -> None:
    """It has no transactions, so it has no transactional id and never looks for the end of one."""

    def list_needed(delivery: str) -> set[tuple[str, str]]:
        return {(grant.name, name) for grant in grants(settings(delivery=delivery)) for name in grant.operations}

    assert list_needed("exactly_once") - list_needed("at_least_once") == {
        ("g:in:", "Write"),
        ("conversation-transitions", "Read"),
        ("conversation-dead-letters", "Read"),
    }
    assert list_needed("at_least_once") < list_needed("exactly_once")
    assert [grant.name for grant in grants(settings()) if grant.is_prefix] == ["g:in:"]


def test_no_two_services_share_a_transactional_id() -> None:
    """The names of topics and groups may contain dashes. Services with the same id would fence each other."""
    services = [("a", "b-c"), ("a-b", "c"), ("a:b", "c"), ("a", "b.c"), ("a.b", "c")]
    ids = {
        transactional_id(settings(group_id=group_id, input_topic=topic), name)
        for group_id, topic in services
        for name in ("0", "redrive:0", "rekey:x:y")
    }
    assert len(ids) == 3 * len(services)


@pytest.mark.parametrize(
    ("grant", "says"),
    [
        (
            Grant("topic", "in", "CC_INPUT_TOPIC", ("Read", "DescribeConfigs")),
            (
                "topic 'in' (CC_INPUT_TOPIC): Read and DescribeConfigs not allowed: `TOOL --add "
                "--allow-principal User:me --operation Read --operation DescribeConfigs --topic in`"
            ),
        ),
        (
            Grant("group", "our group", "CC_GROUP_ID", ("Read",)),
            (
                "group 'our group' (CC_GROUP_ID): Read not allowed: `TOOL --add --allow-principal User:me "
                "--operation Read --group 'our group'`"
            ),
        ),
        (
            Grant("transactional-id", "g-in-", "CC_GROUP_ID, CC_INPUT_TOPIC", ("Write",), is_prefix=True),
            (
                "transactional ids that begin with 'g-in-' (CC_GROUP_ID, CC_INPUT_TOPIC): Write not allowed: "
                "`TOOL --add --allow-principal User:me --operation Write --transactional-id g-in- "
                "--resource-pattern-type prefixed`"
            ),
        ),
    ],
)
def test_remedy_contains_the_command_that_grants_it(grant: Grant, says: str) -> None:
    secured = settings(security_protocol="SASL_SSL", sasl_username="me", sasl_password=SECRET)
    assert grant.remedy(secured) == says.replace("TOOL", TOOL)


@pytest.mark.parametrize(
    "user",
    [
        {"security_protocol": "SSL"},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/token"},
    ],
)
def test_remedy_describes_a_user_that_no_setting_names(user: dict[str, str]) -> None:
    remedy = Grant("topic", "in", "CC_INPUT_TOPIC", ("Read",)).remedy(settings(**user))
    assert "User:NAME --operation Read" in remedy
    assert "where NAME is the service's user (CC_SASL_USERNAME, or the subject of the token" in remedy
