"""The jars of real parts that run on Java. Maven fetches them once; they are kept outside the tree."""

import os
import re
import shutil
import subprocess
from pathlib import Path

_DOWNLOAD_S = 300
_JAVA_S = 20
_JAVA_MIN = 17  # what Kafka 4 brokers run on


def fetch_jars(pom: Path, name: str, *options: str) -> Path | str:
    """The folder of this name with the dependencies of a POM, or why there is none."""
    if not _java_is_new_enough():
        return f"no Java {_JAVA_MIN} or later"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "conversation-consumer" / name
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        return "no Maven to fetch the jars"
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    try:
        subprocess.run([*command, *options], check=True, capture_output=True, text=True, timeout=_DOWNLOAD_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(partial, ignore_errors=True)
        output = error.stdout if isinstance(error, subprocess.CalledProcessError) else f"no end in {_DOWNLOAD_S} s"
        return f"Maven could not fetch the jars: {output}"[:2_000]
    try:
        partial.rename(folder)
    except OSError:  # another session was faster
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _java_is_new_enough() -> bool:
    if shutil.which("java") is None:
        return False
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=_JAVA_S, check=False)
    version = re.search(r'version "(\d+)', answer.stderr)
    return version is not None and int(version[1]) >= _JAVA_MIN
