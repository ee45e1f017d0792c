"""Files of secrets: their bounds, and when their names are shown."""

import os
from pathlib import Path

import pytest

from consumer.secret_files import FileUnusableError, check, describe_error, is_exposed, name_file, read

PEM = "-----BEGIN PRIVATE KEY-----\nbWFyaw==\n-----END PRIVATE KEY-----\n"
TOKEN = f"{'eyJ0eXAiOiJKV1QifQ' * 400}.e30.c2lnbmF0dXJl"


def test_regular_file_up_to_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read(str(file), 10) == b"x" * 10
    check(str(file), 10)
    for refuse in (read, check):
        with pytest.raises(FileUnusableError, match=r"^it is larger than 9 bytes$"):
            refuse(str(file), 9)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/", "pipe"])
def test_device_pipe_and_folder_are_refused_at_once(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for refuse in (read, check):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the next line compares the text
            refuse(str(tmp_path / path))
        assert describe_error(caught.value) in {"it is no regular file", "IsADirectoryError"}


def test_file_that_pretends_to_be_small_is_read_up_to_the_limit() -> None:
    """Files of the kernel have no size."""
    with pytest.raises(FileUnusableError, match="larger than 2 bytes"):
        read("/proc/self/status", 2)


@pytest.mark.parametrize("secret", [PEM, TOKEN, "hunter2", "/hunter2", "//hunter2", "", "nul\0", "\udcff"])
def test_secret_in_the_place_of_a_file_is_not_shown(secret: str) -> None:
    assert name_file(secret) == "the file it names"


def test_file_that_is_there_or_could_be_is_named(tmp_path: Path) -> None:
    dangling = tmp_path / "link"
    dangling.symlink_to("nowhere")
    for path in (tmp_path, dangling, tmp_path / "missing"):
        assert name_file(str(path)) == repr(str(path))


def test_reason_of_another_error_is_its_type() -> None:
    assert describe_error(FileNotFoundError(2, "no", "hunter2")) == "FileNotFoundError"


@pytest.mark.parametrize("path", [PEM, TOKEN, "nul\0"])
def test_what_is_no_file_is_not_exposed(path: str) -> None:
    assert not is_exposed(path)
