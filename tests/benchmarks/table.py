"""The settings that all benchmarks share, and the one format of their results."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run of benchmarks; each benchmark uses those that apply to it."""

    quick: bool = False
    """Whether sizes are as small as possible: shows that a benchmark runs, measures nothing."""
    device: str = "cpu"
    """Device of the networks."""
    models: tuple[str, ...] = ()
    """Networks that are measured; empty: all."""
    pixels: int | None = None
    """Pixels of a training batch. None: 16 crops of 128x128, on CUDA 64."""


@dataclass(frozen=True)
class Table:
    """A result: the first column names what was measured, the others hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    """Conditions of the measurement, as a sentence above the table."""


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables as Markdown for docs/performance.md and docs/results.md."""
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table
        if table.caption:
            print(f"\n{table.caption}")
        print(f"\n| {' | '.join(table.columns)} |\n|---|{'---:|' * (len(table.columns) - 1)}")
        for row in table.rows:
            print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)
