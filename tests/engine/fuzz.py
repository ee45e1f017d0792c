"""`make fuzz MINUTES=n`: compare the engines on scenarios of random seeds until the time is up or they differ.

It prints its seed, each minute what the scenarios held so far, and what they held in all. A difference is shrunk, and
printed as a program; the exit code is 1. Runs of different seeds share no scenario, so what they compared adds up; a
run that was stopped goes on with `--scenario`.
"""

import argparse
import random
import sys
import time

from consumer.engine.choice import EngineClass, import_native
from consumer.engine.python import PythonEngine
from tests.engine.differential import Difference, Tally, describe, make_scenario, replay, shrink

RECORDS = 400
SHRINK_S = 120.0
REPORT_S = 60.0
SCENARIOS_MAX = 10_000_000
"""Scenarios of one seed: 4,000 million records."""


def compare(
    seed: int, seconds: float, left: EngineClass, right: EngineClass, tally: Tally, first_scenario: int = 0
) -> str:
    """Run the scenarios of a seed for some seconds, at least one; returns the first difference as a program."""
    began_s = reported_s = time.monotonic()
    for number in range(first_scenario, SCENARIOS_MAX):
        scenario = make_scenario(seed * SCENARIOS_MAX + number, RECORDS)
        try:
            replay(scenario, left, right, tally)
        except Difference:
            smallest, difference = shrink(scenario, left, right, SHRINK_S)
            return f"# --seed {seed} --scenario {number}\n{describe(smallest, difference)}"
        now_s = time.monotonic()
        if now_s - began_s >= seconds:
            break
        if now_s - reported_s >= REPORT_S:
            reported_s = now_s
            speed = tally.records / (now_s - began_s)
            print(f"{tally.summary()}, {speed:.0f} a second, next --seed {seed} --scenario {number + 1}", flush=True)
    return ""


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--scenario", type=int, default=0, help="the number of the first one")
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    tally = Tally()
    seconds = arguments.minutes * 60
    program = compare(arguments.seed, seconds, PythonEngine, import_native(), tally, arguments.scenario)
    print(*tally.lines(), sep="\n")
    print(program)
    return 1 if program else 0


if __name__ == "__main__":
    sys.exit(main())
