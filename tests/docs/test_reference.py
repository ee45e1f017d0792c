"""The pages of docs/reference are what `make docs` writes, and leave nothing out."""

import re
from pathlib import Path

import pytest

from consumer.cli import exit_codes
from consumer.core.envelope import SNAPSHOT_TIME_HEADER
from consumer.core.outcomes import DeadLettered
from consumer.core.record import Record
from consumer.engine.dead_letters import MARKER_HEADER, REDRIVES_HEADER, DeadLetterFormat, build
from docs.generate.__main__ import REFERENCE, generate_files

PAGES = generate_files()


def first_column(text: str) -> set[str]:
    """What stands as code in the first column of tables."""
    return set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_is_what_make_docs_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path]


def test_no_other_page_is_there() -> None:
    assert set(REFERENCE.iterdir()) == PAGES.keys()


def test_every_exit_code_has_a_row() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    rows = re.findall(r"^\| (\d+) \|", PAGES[REFERENCE / "exit-codes.md"], re.MULTILINE)
    assert list(map(int, rows)) == sorted(codes)


def test_every_header_of_a_dead_letter_has_a_row() -> None:
    record = Record("in", 0, 0, 0, b"k", b"v", ((SNAPSHOT_TIME_HEADER, b"1"), (REDRIVES_HEADER, b"1")))
    form = DeadLetterFormat(keep_payload=False, payload_bytes_max=0, version="1")
    letter = build(record, DeadLettered("late", "", None), form)
    rows = {name for name in first_column(PAGES[REFERENCE / "topics.md"]) if name.startswith("cc-")}
    assert rows == {name for name, _ in letter.headers} | {MARKER_HEADER}
