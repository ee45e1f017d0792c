"""What `check` says about what others can read or find out."""

from pathlib import Path

import pytest

from consumer.preflight.security_checks import check_digest_key, check_encryption, check_files
from consumer.settings import Settings


@pytest.mark.parametrize(
    ("protocol", "servers", "status"),
    [
        ("PLAINTEXT", "127.0.0.1:9092,[::1]:9092,localhost", "pass"),
        ("SSL", "kafka:9092", "pass"),
        ("SASL_SSL", "kafka:9092", "pass"),
        ("PLAINTEXT", "kafka:9092", "warn"),
        ("SASL_PLAINTEXT", "10.0.0.1:9092", "warn"),
        ("PLAINTEXT", "localhost:9092,localhost.example:9092", "warn"),
        ("PLAINTEXT", "[2001:db8::1]:9092", "warn"),
    ],
)
def test_clear_text_beyond_loopback_is_a_warning(protocol: str, servers: str, status: str) -> None:
    result = check_encryption(Settings(bootstrap_servers=servers, security_protocol=protocol))  # type: ignore[arg-type]
    assert (result.check, result.status) == ("encryption", status)
    assert (f"CC_SECURITY_PROTOCOL={protocol}" in result.sentence) == (status == "warn")


@pytest.mark.parametrize(("mode", "status"), [(0o400, "pass"), (0o440, "pass"), (0o444, "warn"), (0o604, "warn")])
def test_secret_that_others_can_read_is_a_warning(tmp_path: Path, mode: int, status: str) -> None:
    """As in Kubernetes, the name is a link."""
    hidden, secret, link = (tmp_path / name for name in ("hidden", "secret", "link"))
    for file, permissions in ((hidden, 0o400), (secret, mode)):
        file.touch()
        file.chmod(permissions)
    link.symlink_to(secret)
    result = check_files({"CC_A_FILE": str(hidden), "CC_B_FILE": str(link), "CC_C_FILE": str(tmp_path / "none")})
    assert (result.check, result.status) == ("files", status)
    assert ("CC_B_FILE" in result.sentence) == (status == "warn")
    assert "CC_A_FILE" not in result.sentence


@pytest.mark.parametrize(("key", "status"), [("", "warn"), ("k", "pass")])
def test_digests_without_a_key_are_a_warning(key: str, status: str) -> None:
    result = check_digest_key(Settings(bootstrap_servers="b:1", digest_key=key))
    assert (result.check, result.status) == ("digests", status)
