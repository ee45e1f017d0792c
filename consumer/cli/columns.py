"""Rows in columns, and lines fit for a terminal."""

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, each column as wide as its widest cell; an empty cell is shown as `-`."""
    shown = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]


def printable(line: str) -> str:
    """A line that does to a terminal nothing but show: ids and states are whatever somebody sent."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
