"""Prints what docs/measurements.md takes in: when, on what, and a table."""

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path


def heading(command: str) -> None:
    """Say what was run, when, and on which machine."""
    cores = len(os.sched_getaffinity(0))
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    print(f"`{command}` · {date.today()} · {cores} cores ({_processor()}), {python}\n", flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, each row as soon as it is there."""
    _row(columns)
    _row("---" for _ in columns)
    for row in rows:
        _row(row)
    print(flush=True)


def _row(cells: Iterable[object]) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
