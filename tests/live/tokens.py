"""Signed tokens for the tests, and the keys with which a broker verifies them (JWS with RS256, RFC 7515)."""

import base64
import json
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

ISSUER, AUDIENCE = "https://issuer.test", "kafka"
_KEY_ID = "tests"


class TokenIssuer:
    """An identity provider."""

    def __init__(self, pem: bytes | None = None) -> None:
        """With the key that `to_pem` gave, or a new one."""
        key = rsa.generate_private_key(65_537, 2_048) if pem is None else load_pem_private_key(pem, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key

    def to_pem(self) -> bytes:
        """The key that signs, for another process."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def key_set(self) -> str:
        """The JWKS document."""
        public = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": _KEY_ID}
        return json.dumps({"keys": [{**key, "n": _number(public.n), "e": _number(public.e)}]})

    def token(self, subject: str, lifetime_s: float, audience: str = AUDIENCE) -> str:
        """A token that is valid for `lifetime_s`; with a negative lifetime it has expired."""
        now_s = int(time.time())
        claims = {"sub": subject, "iss": ISSUER, "aud": audience, "iat": now_s - 600, "exp": int(now_s + lifetime_s)}
        signed = f"{_json({'alg': 'RS256', 'typ': 'JWT', 'kid': _KEY_ID})}.{_json(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_base64(signature)}"


def put(file: Path, content: str) -> None:
    """Replace a file atomically, as the rotation of tokens does."""
    partial = file.with_suffix(".partial")
    partial.write_text(content)
    partial.replace(file)


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8))


def _json(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
