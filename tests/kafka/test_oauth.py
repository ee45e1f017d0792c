"""Tokens from a file: what counts as one, and when it expires."""

import base64
import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka.oauth import TokenFile, TokenUnusableError, parse_expiry, read_token
from tests.live.tokens import TokenIssuer, put


def jwt(claims: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


async def test_token_is_read_again_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    provider = TokenFile(str(file))
    for token in ("first", "second"):
        put(file, f"{token}\n")
        assert await provider.token() == token


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"two tokens", "it holds no token"),
        (b"one\ntwo", "it holds no token"),
        (b"a\x01auth=Bearer b", "it holds no token"),
        ("tök".encode(), "it holds no token"),
        (b"a" * 65_537, "it is larger than 65536 bytes"),
    ],
)
def test_error_does_not_show_the_content_of_the_file(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(TokenUnusableError) as unusable:
        read_token(str(file))
    assert unusable.value.args == (says,)


def test_the_largest_token_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"a" * 65_536)
    assert len(read_token(str(file))) == 65_536


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenUnusableError, match="FileNotFoundError"):
        read_token(str(tmp_path / "token"))


def test_signed_token_has_an_expiry() -> None:
    expires = parse_expiry(TokenIssuer().token("worker", 600))
    assert expires is not None
    assert dt.timedelta(seconds=590) < expires - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=601)


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", jwt(b"{}"), jwt(b"no JSON"), jwt(b'{"exp": "soon"}'), jwt(b'{"exp": 1e300}'), ".é."]
)
def test_any_other_token_has_no_expiry(token: str) -> None:
    assert parse_expiry(token) is None


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_expiry(text)


@given(st.binary())
def test_no_claims_raise(claims: bytes) -> None:
    parse_expiry(jwt(claims))
