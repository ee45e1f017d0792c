"""Lines that are drawn again in place on a terminal, and written one below the other elsewhere."""

import sys
from collections.abc import Sequence

from consumer.cli.output import write_line
from consumer.cli.tables import find_width

_UP_AND_CLEAR = "\x1b[{}F\x1b[J"


class Screen:
    """One block of lines on standard output."""

    def __init__(self) -> None:
        self.is_redrawn = sys.stdout.isatty()
        """Whether lines are drawn in place."""
        self._height = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of those before. A line that is too long for the terminal is cut."""
        width = find_width()
        up = _UP_AND_CLEAR.format(self._height) if self._height else ""
        for number, line in enumerate(lines):
            write_line(line[:width], styled=up if number == 0 else "")
        self._height = len(lines) if self.is_redrawn else 0
