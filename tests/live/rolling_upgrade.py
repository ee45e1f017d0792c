"""The service replaced worker by worker under load, by a newer version: forward, one worker back, and forward again.

`python -m tests.live.rolling_upgrade [--from REVISION] [--seconds N]`. The older version is unpacked from git. By
default it is the one before states got the details of `docs/concepts/fields.md`. Its workers run with the packages of
this environment, on the Python engine, for git has no built one.

What the older version has written last lacks the details that it does not know. So states are compared in what both
versions know, and everything else strictly. That the older version reads all states is part of that. The load shows no
time that only one of them dates a state by: the result would depend on which of them consumed the record.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from consumer.simulator.traffic import Draft
from tests.live import known_states
from tests.live.broker import BrokerError, LocalBroker, jars
from tests.live.faults import steady_traffic
from tests.live.harness import Documents, Pipeline
from tests.live.rolling import Rollout, describe

_ROOT = Path(__file__).parent.parent.parent
_GIT_S = 60
_REREAD_S = 300
_SECONDS = 10.0
_DATES_OF_THE_NEW = (b'"startAlertingTime"',)
"""Times of the input that date states since the default revision."""


def find_default_revision() -> str:
    """The commit before the page of fields, and the fields with it, came. Raises CalledProcessError."""
    added = _git("log", "--diff-filter=A", "--format=%H", "--", "docs/concepts/fields.md").decode().split()
    return f"{added[-1]}^"


def unpack(revision: str, folder: Path) -> Path:
    """Unpack the tree of a revision into a new folder. Raises CalledProcessError if git does not have it."""
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=_git("archive", revision), check=True, timeout=_GIT_S)
    return folder


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=_ROOT, check=True, capture_output=True, timeout=_GIT_S).stdout


def reread(documents: Documents, tree: Path) -> Documents:
    """States as the version in another tree writes them. Raises CalledProcessError if it cannot read one."""
    reread: Documents = json.loads(
        subprocess.run(
            [sys.executable, "-P", known_states.__file__], env=os.environ | {"PYTHONPATH": str(tree)},
            input=json.dumps(documents).encode(), stdout=subprocess.PIPE, check=True, timeout=_REREAD_S,
        ).stdout
    )  # fmt: skip
    return reread


def hide_dates(traffic: Iterator[Draft]) -> Iterator[Draft]:
    """Traffic with these times under names that no version knows."""
    for draft in traffic:
        value = draft.value
        for name in _DATES_OF_THE_NEW:
            value = value and value.replace(name, b'"unknown"')
        yield replace(draft, value=value)


async def run(old: Path, seconds: float, seed: int, logs: Path) -> list[str]:
    """Upgrade two workers from the version in `old`; returns a sentence for every broken promise."""
    folder = jars()
    if isinstance(folder, str):
        raise BrokerError(f"needs a broker of its own: {folder}")
    broker = LocalBroker(folder)
    pipeline = Pipeline(broker.bootstrap_servers, f"rolling-{seed}", logs, commit_interval_ms=200)
    try:
        await asyncio.to_thread(broker.start)
        await pipeline.create()
        rollout = Rollout(pipeline, seconds)
        await rollout.start(old)
        await rollout.start(old)
        async with rollout.load(hide_dates(steady_traffic(seed, broken=0))):
            await rollout.go_on("both old")
            for what, index, tree in (
                ("one new", 0, None),
                ("both new", 1, None),
                ("one back to the old", 0, old),
                ("both new again", 0, None),
            ):
                await rollout.replace(index, tree)
                await rollout.go_on(what)
        judged = await pipeline.compare(lambda documents: reread(documents, old))
        print(describe(judged, pipeline))
        unread = [
            f"worker {number} restored no conversation that another version had written"
            for number, worker in enumerate(pipeline.workers[2:], 3)
            if not any(event["conversations"] for event in worker.events("lane.opened"))
        ]
        return rollout.broken_promises(judged) + unread
    finally:
        await pipeline.close()
        await asyncio.to_thread(broker.close)


def main() -> None:
    """The upgrade, from the command line."""
    parser = argparse.ArgumentParser(description="Workers upgraded one by one under load, and back.")
    parser.add_argument("--from", dest="revision", metavar="REVISION", help="the older version, a git revision")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="how long each mix of versions runs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the workers' own logs have the same errors
    logs = Path(tempfile.mkdtemp(prefix="rolling-upgrade-"))
    revision = options.revision or find_default_revision()
    print(f"seed {options.seed}, from {revision}", flush=True)
    try:
        broken = asyncio.run(run(unpack(revision, logs / "old"), options.seconds, options.seed, logs))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {(error.stderr or b'').decode()}: is the revision in this clone?")
    if broken:
        sys.exit("\n".join((*broken[:20], f"logs of the workers in {logs}")))
    shutil.rmtree(logs)


if __name__ == "__main__":
    main()
