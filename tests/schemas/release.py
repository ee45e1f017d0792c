"""`python -m tests.schemas.release` keeps the contract of this version, and messages of it, in tests/data/released.

It is run once for a release. From then on the folder of the version stays as it is: later versions have to read what it
holds, and those who read its messages have to read theirs.
"""

import gzip
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from consumer.simulator.traffic import Traffic
from consumer.version import VERSION
from generate.__main__ import TOPICS
from tests.core.play import play
from tests.schemas.messages import dead_letter_headers, simulate

RELEASED: Final = Path(__file__).parents[1] / "data" / "released"
"""Has a folder for each version."""
UPDATES: Final = 160
BEFORE_UPGRADE: Final = UPDATES // 2
"""Of the updates, how many the version processed; the others are for a later version, after an upgrade."""


def main() -> None:
    """Write the folder of this version."""
    folder = RELEASED / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    for schema in TOPICS.glob("*.schema.json"):
        shutil.copy(schema, folder)
    updates = simulate(Traffic(seed=5, conversations=10, flat=0.3, disorder=0.3, broken=0.05), UPDATES)
    played = play(updates[:BEFORE_UPGRADE])
    with gzip.GzipFile(folder / "updates.jsonl.gz", "wb", mtime=0) as file:
        file.writelines(msgspec.json.encode(update) + b"\n" for update in updates)
    _write(folder / "state.jsonl", played.states.values())
    _write(folder / "transition.jsonl", map(msgspec.json.encode, played.log))
    letters = dead_letter_headers(updates[:BEFORE_UPGRADE], played)
    _write(folder / "dead-letter-headers.jsonl", map(msgspec.json.encode, letters))


def _write(file: Path, lines: Iterable[bytes]) -> None:
    file.write_bytes(b"".join(line + b"\n" for line in lines))


if __name__ == "__main__":
    main()
