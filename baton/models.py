"""`baton models`: the model types that have a name, or what one directory holds and how it would run."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.catalogue import MODEL_TYPES, Family
from shared.job import MediaKind
from worker.models.family import LoadError
from worker.models.inspection import inspect

BATCH = "in a batch"


def main() -> None:
    """Print the table; the exit status is 1 if the directory holds nothing that could be served."""
    parser = argparse.ArgumentParser(description="List the model types, or say what a directory holds.")
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="A checkpoint on this machine.")
    directory = parser.parse_args().directory
    if directory is None:
        _show(_catalogue())
        return
    if not directory.is_dir():
        sys.exit(f"baton models: {directory} is not a directory")
    try:
        _show(_holding(directory))
    except LoadError as error:
        sys.exit(f"baton models: {error}")


def _catalogue() -> Table:
    table = Table("model type", "takes", "runs", "weights")
    for entry in MODEL_TYPES.values():
        if entry.family is Family.GENERIC:
            table.add_row(entry.name, "what its processor takes", f"{BATCH}, or alone", "any directory or hub id")
        else:
            weights = "shipped with Baton" if entry.is_shipped else entry.huggingface_id or ""
            table.add_row(entry.name, _takes(entry.modalities), BATCH, weights)
    return table


def _holding(directory: Path) -> Table:
    found = inspect(directory)
    table = Table("model type", "class", "takes", "runs")
    runs = BATCH if found.obstacle is None else f"alone: {found.obstacle}"
    table.add_row(found.model_type, found.class_name, _takes(found.modalities), runs)
    return table


def _takes(kinds: Iterable[MediaKind]) -> str:
    return ", ".join(["text", *kinds])


def _show(table: Table) -> None:
    console = Console()
    if not console.is_terminal:  # whoever reads it then counts no columns
        console.width = 200
    console.print(table)
