"""`generate` as a user runs it, without a broker; the live tests run it against one."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from consumer.cli.generate import generate
from consumer.simulator.recording import read
from tests.kafka.refusing_broker import refusing_broker


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner(env={"CC_BOOTSTRAP_SERVERS": None}).invoke(generate, list(map(str, arguments)), input=stdin)


def test_a_file_holds_as_many_records_as_asked_for(tmp_path: Path) -> None:
    """Standard error has the options that repeat them."""
    file = tmp_path / "traffic.jsonl"

    result = run("--count", 300, "--seed", 7, "--output", file)

    assert result.exit_code == 0, result.output
    assert "--seed 7 --start-ms" in result.stderr
    assert "wrote 300 records" in result.stderr
    with file.open("rb") as recorded:
        assert len(list(read(recorded))) == 300


def test_seed_and_start_repeat_a_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run("--count", 200, "--seed", 3, "--start-ms", 1_767_225_600_000, "--output", tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_stdout_holds_nothing_but_records() -> None:
    result = run("--count", 20, "--output", "-")

    assert len(list(read(result.stdout_bytes.splitlines()))) == 20


def test_frames_are_put_around_the_same_records(tmp_path: Path) -> None:
    for name, framing in (("plain", ()), ("framed", ("--framing", "confluent", "--framing", "byte_order_mark"))):
        run("--count", 50, "--seed", 3, "--start-ms", 1_767_225_600_000, "--output", tmp_path / name, *framing)

    plain, framed = (list(read((tmp_path / name).read_bytes().splitlines())) for name in ("plain", "framed"))
    assert framed == [replace(draft, value=b"\0\0\0\0\x07\xef\xbb\xbf" + draft.value) for draft in plain]
    assert run("--output", "-", *["--framing", "text"] * 9).exit_code == 2
    assert run("--output", "-", "--framing", "envelope").exit_code == 2


def test_the_shares_shape_the_traffic() -> None:
    result = run("--count", 200, "--broken", 0, "--ignorable", 0.9, "--output", "-")

    drafts = list(read(result.stdout_bytes.splitlines()))
    assert sum(draft.key is None for draft in drafts) > 100
    assert not any(draft.broken for draft in drafts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--disorder", 2), "--disorder"),
        (("--bare", 0.6, "--eventbridge", 0.6), "eventbridge + bare must be at most 1"),
        (("--conversations", 0), "Error: conversations must be from 1 to 1000000, not 0"),
        (("--records-per-s", "nan"), "Error: records_per_s must be from 0.001 to 1000000, not nan"),
        (("--start-ms", -1), "Error: start_ms must be from"),
        (("--count", 0), "--count"),
        (("--input", "-", "--output", "-"), "exclude each other"),
    ],
)
def test_wrong_options_are_named(arguments: tuple[object, ...], message: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_missing_broker_setting_is_named() -> None:
    result = run("--count", 1)

    assert result.exit_code == 78


def test_a_broker_that_does_not_answer_is_reported() -> None:
    result = run("--bootstrap-servers", "127.0.0.1:1", "--count", 1)

    assert result.exit_code == 69
    assert "Traceback" not in result.output


def test_a_wrong_password_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    monkeypatch.setenv("CC_SASL_USERNAME", "u")
    monkeypatch.setenv("CC_SASL_PASSWORD", "hunter2-marked")
    with refusing_broker() as address:
        result = run("--bootstrap-servers", address, "--count", 1)

    assert result.exit_code == 78
    assert "CC_SASL_PASSWORD" in result.stderr
    assert "hunter2" not in result.output


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    result = run("--count", 1, "--output", tmp_path / "nowhere" / "file")

    assert result.exit_code == 1
    assert "nowhere" in result.stderr
