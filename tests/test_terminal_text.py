"""Text from elsewhere on a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.terminal_text import escape_json, replace_controls

OBEYED = [
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # writes to the clipboard
    "\x9b2J",  # clears the screen, in one character
    "\r", "\n", "\x08", "\x7f", "\x85", "\u2028",
    "\u202e", "\u2066", "\u200f",  # the direction of reading
    "\ufeff", "\u200b", "\U000e0041",  # invisible
    "\ud800", "\ue000", "\U0010ffff",
]  # fmt: skip
HARMLESS = "a ä 漢 \u0301 🙂 \u05d0"


@pytest.mark.parametrize("text", OBEYED)
def test_character_that_a_terminal_obeys_is_replaced(text: str) -> None:
    hidden = [character for character in text if not character.isprintable()]
    assert hidden
    cleaned = replace_controls(f"a{text}b")
    assert cleaned.count("\N{REPLACEMENT CHARACTER}") == len(hidden)
    assert cleaned.isprintable()


@pytest.mark.parametrize("text", OBEYED)
def test_json_keeps_the_text_as_an_escape(text: str) -> None:
    escaped = escape_json(json.dumps({"id": text}, ensure_ascii=False))
    assert escaped.isprintable()
    assert json.loads(escaped) == {"id": text}


def test_other_text_stays_as_it_is() -> None:
    assert replace_controls(HARMLESS) == escape_json(HARMLESS) == HARMLESS


@given(st.text())
def test_any_text_is_safe(text: str) -> None:
    cleaned, escaped = replace_controls(text), escape_json(json.dumps(text, ensure_ascii=False))
    categories = {unicodedata.category(character) for character in cleaned + escaped}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(cleaned) == len(text)
    assert json.loads(escaped) == text
