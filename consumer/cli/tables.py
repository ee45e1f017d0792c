"""Aligned tables, and lines that fit the terminal."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

_INDENT = 4


def find_width() -> int | None:
    """Columns of the terminal, or the environment's `COLUMNS`; None where lines may be of any length."""
    return shutil.get_terminal_size((0, 0)).columns or None


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, with every column as wide as its widest cell; an empty cell becomes `-`."""
    filled = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filled, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in filled]


def stack(rows: Sequence[Sequence[str]], width: int | None, columns: int) -> list[str]:
    """As `align` if that fits; else a table of the first `columns`, with a line below each row for every other cell.

    The first row has the headings. Cells that are empty are left out below.
    """
    lines = align(rows)
    if width is None or max(map(len, lines)) <= width:
        return lines
    headings, *lead = align([row[:columns] for row in rows])
    names = rows[0][columns:]
    stacked = [headings]
    for line, row in zip(lead, rows[1:], strict=True):
        stacked.append(line)
        stacked += [f"{'':{_INDENT}}{name} {cell}" for name, cell in zip(names, row[columns:], strict=True) if cell]
    return stacked


def wrap(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """The lines, those that are too long in pieces, which are indented deeper."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
        else:
            indent = " " * (len(line) - len(line.lstrip()))
            yield from textwrap.wrap(
                line,
                width,
                initial_indent="",
                subsequent_indent=f"{indent}{'':{_INDENT}}",
                break_long_words=False,
                break_on_hyphens=False,
            )
