"""The program with another tuning, as JSON, which no setting changes: `python -m tests.tuned TUNING MODULE ...`."""

import runpy
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from consumer import environment
from consumer.settings import Settings
from consumer.tuning import Tuning


def python(tuning: Tuning) -> list[str]:
    """The beginning of a command line; a module and its arguments follow."""
    is_default = tuning == Tuning()
    return [sys.executable, "-m", *(() if is_default else ("tests.tuned", msgspec.json.encode(tuning).decode()))]


def with_changes(settings: Settings, **changed: Any) -> Settings:
    """These settings with other values; a field of the tuning may be given by its name too."""
    tuned = {name: changed.pop(name) for name in Tuning.__struct_fields__ if name in changed}
    return replace(settings, tuning=replace(settings.tuning, **tuned), **changed)


def _install(tuning: Tuning) -> None:
    parse = environment.parse

    def parse_tuned(environ: Mapping[str, str], read_file: Callable[[str], str]) -> Settings:
        return replace(parse(environ, read_file), tuning=tuning)

    environment.parse = parse_tuned


if __name__ == "__main__":
    _, tuning, *sys.argv = sys.argv
    _install(msgspec.json.decode(tuning, type=Tuning))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
