"""The pictures of the live page in the documents."""

import re

from tests.web.screenshots import FOLDER

_BYTES_MAX = 150_000


def test_pictures_are_small_and_shown() -> None:
    page = FOLDER.parent.joinpath("query.md").read_text(encoding="utf-8")
    pictures = {picture.name: picture.stat().st_size for picture in FOLDER.iterdir()}
    assert set(re.findall(r"pictures/([\w-]+\.png)", page)) == set(pictures)
    assert max(pictures.values()) < _BYTES_MAX
