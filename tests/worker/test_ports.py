"""The fakes that stand for a broker keep the contract of the ports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from consumer.core.record import Record
from consumer.settings import OutputName
from consumer.worker.ports import Publisher
from tests.fakes import UNREACHABLE, Broker, FakeInputConsumer, FakeLogEnds, FakePublisher, FakeStateLog
from tests.port_contract import Message, PortContract, Ports


class FakePorts:
    """Implements `port_contract.Ports`."""

    def __init__(self) -> None:
        self.partition = 3
        self._broker = Broker()
        self._log = self._broker.partitions[self.partition]
        self.input_consumer = FakeInputConsumer(self._broker)
        self.state_log = FakeStateLog(self._broker)
        self.log_ends = FakeLogEnds(self._broker)

    def new_publisher(self) -> Publisher:
        return FakePublisher(self._broker, self.partition)

    async def write(self, *messages: Message) -> None:
        for message in messages:
            key, value, headers = message.key, message.value, message.headers
            self._log.input.append(Record("t", self.partition, self._log.input_stable, 0, key, value, headers))

    @asynccontextmanager
    async def write_uncommitted(self, *messages: Message) -> AsyncIterator[None]:
        self._log.undecided_input = len(messages)
        yield
        self._log.markers_end = self._log.input_stable + len(messages) + 1
        self._log.undecided_input = 0

    async def delete_before(self, offset: int) -> None:
        self._log.markers_end = self._log.input_stable
        self._log.input[:] = [record for record in self._log.input if record.offset >= offset]

    def fail_before_end(self, publisher: Publisher) -> None:  # noqa: ARG002 - the protocol's
        self._broker.at("commit", UNREACHABLE)

    async def read(self, output: OutputName) -> list[Message]:
        return [Message(found.key, found.value, tuple(found.headers)) for found in self._log.read(output)]


class TestFakes(PortContract):
    """The tests of the contract."""

    @pytest.fixture
    def ports(self) -> Ports:
        return FakePorts()
