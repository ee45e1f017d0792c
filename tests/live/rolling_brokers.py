"""Three brokers upgraded one after another under load, their features at the end, with two workers beside them.

`python -m tests.live.rolling_brokers [--from VERSION] [--to VERSION] [--seconds N]`. Every topic has 3 replicas, of
which 2 have to be in sync. As an operator does it, the next broker is stopped when all replicas are in sync again.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aiokafka.errors import KafkaError

from tests.live.broker import KAFKA_VERSION, KEEPS_MARKERS, BrokerError, jars, release_of
from tests.live.cluster import NODES, Cluster
from tests.live.commands import WAIT_S
from tests.live.faults import steady_traffic
from tests.live.harness import Pipeline
from tests.live.rolling import Rollout, describe

_WORKERS = 2
_TOOL_S = 120
_SECONDS = 10.0


def needed_jars(version: str) -> Path:
    """Kafka's jars. Raises BrokerError if there are none."""
    folder = jars(version)
    if isinstance(folder, str):
        raise BrokerError(f"needs brokers of its own: {folder}")
    return folder


async def in_sync(cluster: Cluster) -> None:
    """Wait until all replicas of all partitions are in sync."""
    async with asyncio.timeout(WAIT_S):
        while await _count_lagging(cluster):
            await asyncio.sleep(0.2)


async def _count_lagging(cluster: Cluster) -> int:
    """The number of partitions with replicas that are not in sync; 1 if the brokers do not answer."""
    with contextlib.suppress(KafkaError, TimeoutError):
        async with cluster._admin() as admin:
            topics = await admin.describe_topics()
        partitions = [partition for topic in topics for partition in topic["partitions"]]
        return sum(len(partition["isr"]) < NODES for partition in partitions)
    return 1


def upgrade_features(cluster: Cluster, release: str) -> str:
    """Raise the levels of all features to those of a release; returns what Kafka's tool says."""
    arguments = ("--bootstrap-server", cluster.bootstrap_servers, "upgrade", "--release-version", release)
    command = cluster.nodes[0]._java("org.apache.kafka.tools.FeatureCommand", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=False)
    if done.returncode != 0:
        raise BrokerError(f"the features were not upgraded: {done.stdout}{done.stderr}"[-4_000:])
    return done.stdout.strip()


async def run(old: str, new: str, seconds: float, seed: int, logs: Path) -> list[str]:
    """Upgrade brokers from one version to another; returns a sentence for every broken promise."""
    async with Cluster(needed_jars(old), format_options=()).running() as cluster:
        pipeline = Pipeline(cluster.bootstrap_servers, f"rolling-{seed}", logs, commit_interval_ms=200)
        try:
            await pipeline.create(NODES)
            rollout = Rollout(pipeline, seconds)
            for _ in range(_WORKERS):
                await rollout.start()
            async with rollout.load(steady_traffic(seed, broken=0)):
                await rollout.go_on(f"all brokers {old}")
                for node in cluster.nodes:
                    await asyncio.to_thread(node.stop)
                    node.replace_jars(needed_jars(new))
                    await asyncio.to_thread(node.start)
                    await in_sync(cluster)
                    await rollout.go_on(f"broker {node.number} of {NODES} is {new}")
                major, minor = release_of(new)
                print(await asyncio.to_thread(upgrade_features, cluster, f"{major}.{minor}"))
                await rollout.go_on("features upgraded")
            judged = await pipeline.compare()
            print(f"{describe(judged, pipeline)}; {len(cluster.lost_markers())} lost markers")
            return rollout.broken_promises(judged)
        finally:
            await pipeline.close()


def main() -> None:
    """The upgrade, from the command line."""
    parser = argparse.ArgumentParser(description="Three brokers upgraded one after another under load.")
    parser.add_argument("--from", dest="old", metavar="VERSION", default=KEEPS_MARKERS)
    parser.add_argument("--to", dest="new", metavar="VERSION", default=KAFKA_VERSION)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="how long each mix of versions runs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the workers' own logs have the same errors
    logs = Path(tempfile.mkdtemp(prefix="rolling-brokers-"))
    print(f"seed {options.seed}, from {options.old} to {options.new}", flush=True)
    broken = asyncio.run(run(options.old, options.new, options.seconds, options.seed, logs))
    if broken:
        sys.exit("\n".join((*broken[:20], f"logs of the workers in {logs}")))
    shutil.rmtree(logs)


if __name__ == "__main__":
    main()
