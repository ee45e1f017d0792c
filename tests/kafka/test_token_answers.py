"""Answers of a token endpoint: which of them are tokens, and what the others mean to an operator."""

import base64
import json
import ssl
import time

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka.token_answers import IssuedToken, TokenNotIssuedError, explain_silence, parse_answer

SECRET = "hunter2-marked"
CREDENTIALS = "CC_SASL_OAUTH_CLIENT_ID and the secret in CC_SASL_OAUTH_CLIENT_SECRET_FILE"
ENDPOINT = "name the URL of the provider's token endpoint"


def jwt(**claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def answer(**fields: object) -> bytes:
    return json.dumps({"access_token": "t", "token_type": "Bearer"} | fields).encode()


@pytest.mark.parametrize(
    ("fields", "lifetime_s"),
    [
        ({"expires_in": 3600}, 3_599),
        ({"expires_in": "3600", "ext_expires_in": "x"}, 3_599),
        ({"expires_in": 60, "token_type": "bearer"}, 59),
        ({"expires_in": 10**9}, 86_399),
        ({"expires_in": "inf"}, 86_399),
        ({}, 299),
        ({"access_token": jwt(sub="x")}, 299),
    ],
)
def test_lifetime_is_that_of_the_answer(fields: dict[str, object], lifetime_s: float) -> None:
    """Less the second by which times in a token are rounded; a day at most, and five minutes if nothing says."""
    assert parse_answer(200, answer(**fields)) == IssuedToken(str(fields.get("access_token", "t")), lifetime_s)


def test_token_itself_says_when_it_expires() -> None:
    token = jwt(exp=time.time() + 10_000)
    assert 9_900 < parse_answer(200, answer(access_token=token)).lifetime_s < 9_999.1


@pytest.mark.parametrize(
    ("status", "body", "is_transient", "says"),
    [
        (401, {"error": "invalid_client"}, False, f"refused the client (401, invalid_client): check {CREDENTIALS}"),
        (400, {"error": "invalid_client"}, False, CREDENTIALS),
        (401, b"<html>", False, f"refused the client (401): check {CREDENTIALS}"),
        (403, {"error": SECRET}, False, f"refused the client (403): check {CREDENTIALS}"),
        (400, {"error": "invalid_scope"}, False, "check CC_SASL_OAUTH_SCOPE"),
        (400, {"error": "unauthorized_client"}, False, "the grant client_credentials"),
        (400, {"error": "unsupported_grant_type"}, False, "the grant client_credentials"),
        (400, {"error": 7}, False, ENDPOINT),
        (302, b"", False, ENDPOINT),
        (404, b"", False, ENDPOINT),
        (408, b"", True, "no answer at the moment (408)"),
        (429, {"error": "invalid_client"}, True, "no answer at the moment (429)"),
        (500, b"", True, "no answer at the moment (500)"),
        (503, b"", True, "no answer at the moment (503)"),
        (200, b"<html>", False, ENDPOINT),
        (200, b"[" * 100_000, False, ENDPOINT),
        (200, b'{"access_token": "\xff"}', False, ENDPOINT),
        (200, {"token": SECRET}, False, ENDPOINT),
        (200, {"access_token": f"{SECRET} {SECRET}"}, False, "holds no token"),
        (200, {"access_token": f"{SECRET}\x01auth=x"}, False, "holds no token"),
        (200, {"access_token": ""}, False, "holds no token"),
        (200, {"access_token": SECRET, "token_type": "mac"}, False, "no bearer token"),
        (200, {"access_token": SECRET, "expires_in": 1}, True, "check the clocks"),
        (200, {"access_token": SECRET, "expires_in": "nan"}, True, "check the clocks"),
        (200, {"access_token": jwt(exp=1)}, True, "check the clocks"),
    ],
)
def test_any_other_answer_is_an_error_with_a_remedy(
    status: int, body: bytes | dict[str, object], says: str, *, is_transient: bool
) -> None:
    with pytest.raises(TokenNotIssuedError) as raised:
        parse_answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert raised.value.is_transient == is_transient
    assert raised.value.args[0].startswith("CC_SASL_OAUTH_TOKEN_ENDPOINT: ")
    assert says in raised.value.args[0]
    assert SECRET not in repr(raised.value)


FIELDS = st.sampled_from(["access_token", "expires_in", "token_type", "error"])
DOCUMENTS = st.dictionaries(FIELDS, st.none() | st.floats() | st.text()).map(lambda value: json.dumps(value).encode())


@given(st.sampled_from([200, 400, 401, 500]), st.binary() | DOCUMENTS)
def test_every_answer_is_a_token_or_an_error(status: int, body: bytes) -> None:
    try:
        issued = parse_answer(status, body)
    except TokenNotIssuedError:
        return
    assert 0 < issued.lifetime_s < 86_400


def test_a_token_is_not_shown() -> None:
    assert SECRET not in repr(IssuedToken(SECRET, 1.0))


@pytest.mark.parametrize(
    ("verify_code", "is_transient", "says"),
    [
        (10, True, "have it renewed"),
        (9, True, "have it renewed"),
        (19, False, "CC_SASL_OAUTH_CA_FILE"),
        (62, False, "host"),
    ],
)
def test_certificate_of_the_provider_has_a_remedy(verify_code: int, says: str, *, is_transient: bool) -> None:
    verification = ssl.SSLCertVerificationError()
    verification.verify_code = verify_code
    error = aiohttp.ClientConnectorCertificateError(None, verification)  # type: ignore[arg-type]
    explained = explain_silence(error)
    assert explained.is_transient == is_transient
    assert says in explained.args[0]


def test_unreachable_provider_is_transient() -> None:
    for error in (TimeoutError(SECRET), ConnectionRefusedError(SECRET), aiohttp.ServerDisconnectedError(SECRET)):
        explained = explain_silence(error)
        assert explained.is_transient
        assert explained.args[0].endswith(f"cannot be reached: {type(error).__name__}")
