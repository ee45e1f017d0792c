"""What members tell of themselves, and what is read of members that tell something else."""

import pytest
from aiokafka import errors
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from consumer.kafka.group_view import KafkaGroupView, _read_address, _read_partitions, advertising
from consumer.settings import Settings, join_address, parse_address
from consumer.worker.ports import RetriableError


@pytest.mark.parametrize("address", ["", "10.0.0.1:8081", "[fd00::1]:8081", "worker-0.example:1"])
def test_a_member_tells_its_address(address: str) -> None:
    assignor = advertising(lambda: address)
    assert assignor.name == "roundrobin", "members of the version before share partitions with it"
    metadata = assignor.metadata(["in"])
    assert (metadata.subscription, bool(metadata.user_data)) == (["in"], bool(address))
    assert _read_address(metadata.encode()) == address


@pytest.mark.parametrize(
    "user_data",
    [
        b"",
        None,
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"query":7}',
        b'{"query":""}',
        b'{"query":"10.0.0.1"}',
        b'{"query":"10.0.0.1:0"}',
        b'{"query":"10.0.0.1:65536"}',
        b'{"query":"user@10.0.0.1:80"}',
        b'{"query":"10.0.0.1:80/path"}',
        b'{"query":"a b:80"}',
        b'{"query":"%s:80"}' % (b"a" * 600),
        b"[" * 512,
    ],
)
def test_user_data_that_tells_no_address_is_none(user_data: bytes | None) -> None:
    """Any client that may join the group chooses its own user data."""
    assert _read_address(ConsumerProtocolMemberMetadata(0, ["in"], user_data).encode()) == ""


@pytest.mark.parametrize("damaged", [b"", b"\x00", b"\x00\x01\xff\xff\xff\xff", b"\x00\x00\x7f\xff\xff\xff"])
def test_a_damaged_description_is_none(damaged: bytes) -> None:
    assert _read_address(damaged) == ""
    assert _read_partitions(damaged, "in") == ()


def test_partitions_are_those_of_the_input() -> None:
    assignment = ConsumerProtocolMemberAssignment(0, [("other", [7]), ("in", [2, 0])], b"").encode()
    assert _read_partitions(assignment, "in") == (0, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:8081", ("10.0.0.1", 8081)),
        ("fd00::1", ("fd00::1", None)),
        ("[fd00::1]", ("fd00::1", None)),
        ("[fd00::1]:8081", ("fd00::1", 8081)),
        ("a-b.example:1", ("a-b.example", 1)),
        ("", None),
        (":80", None),
        ("a:", None),
        ("a:b", None),
        ("a:65536", None),
        ("[a]:80", None),
        ("http://a:80", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int | None] | None) -> None:
    parsed = parse_address(text)
    assert parsed == expected
    if parsed is not None and parsed[1] is not None:
        assert join_address(parsed[0], parsed[1]) == text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.NodeNotReadyError(), "its coordinator does not answer (NodeNotReadyError)"),
        (ConnectionResetError(), "its coordinator does not answer (ConnectionResetError)"),
        (errors.GroupAuthorizationFailedError(), "a permission is missing: grant"),
        (RetriableError("connecting to b:1: refused"), "connecting to b:1: refused"),
    ],
)
async def test_a_description_that_fails_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    async def fail(_: KafkaGroupView) -> None:
        raise error

    monkeypatch.setattr(KafkaGroupView, "_ask", fail)
    view = KafkaGroupView(Settings(bootstrap_servers="b:1"), lambda: ("member", 1), lambda: 4)
    problem = (await view.describe()).problem
    assert problem.startswith(f"the group could not be described: {said}")
