"""Tokens from a file: what is one, and when it says that it expires."""

import base64
import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.adapters.kafka.tokens import TokenFile, TokenUnusableError, expiry, read_token
from tests.live.tokens import TokenIssuer, put


def jwt(claims: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


async def test_the_token_is_the_one_that_the_file_has_then(tmp_path: Path) -> None:
    file = tmp_path / "token"
    held = TokenFile(str(file))
    for token in ("first", "second"):
        put(file, f"{token}\n")
        assert await held.token() == token


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"two tokens", "it holds no token"),
        (b"one\ntwo", "it holds no token"),
        (b"a\x01auth=Bearer b", "it holds no token"),
        ("tök".encode(), "it holds no token"),
        (b"a" * 65_537, "it holds no token"),
    ],
)
def test_a_file_without_a_token_says_so_and_not_what_it_has(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(TokenUnusableError) as told:
        read_token(str(file))
    assert told.value.args == (says,)


def test_the_largest_token_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"a" * 65_536)
    assert len(read_token(str(file))) == 65_536


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TokenUnusableError, match="FileNotFoundError"):
        read_token(str(tmp_path / "token"))


def test_a_signed_token_says_when_it_expires() -> None:
    expires = expiry(TokenIssuer().token("worker", 600))
    assert expires is not None
    assert dt.timedelta(seconds=590) < expires - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=601)


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", jwt(b"{}"), jwt(b"no JSON"), jwt(b'{"exp": "soon"}'), jwt(b'{"exp": 1e300}'), ".é."]
)
def test_another_does_not_say(token: str) -> None:
    assert expiry(token) is None


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    expiry(text)


@given(st.binary())
def test_no_claims_make_it_fail(claims: bytes) -> None:
    expiry(jwt(claims))
