"""A recording returns the records that went into it."""

from itertools import islice

import pytest

from consumer.simulator.recording import RecordingError, lines, read
from consumer.simulator.traffic import Traffic, records


def test_records_come_back_as_they_were() -> None:
    drafts = list(islice(records(Traffic(broken=0.1, ignorable=0.1)), 500))

    assert list(read(lines(drafts))) == drafts


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b'{"key":1}', b"\xff\n", b'{"key":"\xff"}'])
def test_an_invalid_line_is_refused_with_its_number(line: bytes) -> None:
    good = next(lines(records(Traffic())))

    with pytest.raises(RecordingError, match="line 2 "):
        list(read([good, line]))
