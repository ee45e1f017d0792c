"""The memory limit of a container, as Linux writes it into files."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.container_memory import find_limit, share_of_states

MIB = 1024 * 1024
V1_NONE = "9223372036854771712"


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1024 * MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                "sys/fs/cgroup/a.slice/memory.max": "100\n",
                "sys/fs/cgroup/a.slice/b.scope/memory.max": "max\n",
            },
            100,
        ),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                "sys/fs/cgroup/a.slice/memory.max": "100\n",
                "sys/fs/cgroup/a.slice/b.scope/memory.max": "70\n",
            },
            70,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
            },
            512 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{V1_NONE}\n",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "70\n",
            },
            70,
        ),
        ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE}, None),
    ],
)
def test_least_limit_around_the_process_counts(tmp_path: Path, files: Mapping[str, str], limit: int | None) -> None:
    write(tmp_path, files)
    assert find_limit(tmp_path) == limit


def test_limit_of_this_machine_can_be_asked_for() -> None:
    limit = find_limit()
    assert limit is None or limit > 0


@pytest.mark.parametrize(("limit_mib", "share_mib"), [(1, 16), (128, 16), (256, 102), (1_024, 716), (8_192, 6_451)])
def test_states_get_a_share(limit_mib: int, share_mib: int) -> None:
    assert share_of_states(limit_mib * MIB) // MIB == share_mib
