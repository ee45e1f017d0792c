"""The README is short, and begins with the two commands."""

import re

from tests.docs.pages import ROOT, console_lines, text_of

README = ROOT / "README.md"
LINES_MAX = 130


def test_readme_is_short() -> None:
    assert len(text_of(README).splitlines()) <= LINES_MAX


def test_readme_begins_with_the_two_commands() -> None:
    assert console_lines(README)[:2] == ["make demo", "make test"]


def test_readme_has_six_guarantees_of_a_line_each() -> None:
    section = text_of(README).partition("## What it guarantees\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^- \*\*\w[\w ]*\.\*\* .*$", section, re.MULTILINE)) == 6
    assert len(re.findall(r"^- ", section, re.MULTILINE)) == 6
