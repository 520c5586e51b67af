"""What a directory holds and how it would be served, without its weights."""

from dataclasses import dataclass
from pathlib import Path

from shared.catalogue import Family
from shared.garbage import lasting
from shared.job import MediaKind
from worker.models.registry import import_family, of_reference


@dataclass(frozen=True, slots=True)
class Inspection:
    """One directory, as `baton models` shows it."""

    model_type: str
    class_name: str
    """The transformers class of a generic model; empty for a family of ours."""
    modalities: tuple[MediaKind, ...]
    obstacle: str | None
    """Why its requests run one at a time; None if they run in a batch."""


def inspect(directory: Path) -> Inspection:
    """Return what the directory holds; raises LoadError if it can't be served."""
    entry = of_reference(str(directory))
    if entry.family is not Family.GENERIC:
        return Inspection(entry.name, "", entry.modalities, None)
    with lasting():
        generic = import_family(Family.GENERIC)
    architecture = generic.read_architecture(directory)
    taken = generic.modalities(generic.read_processor(directory))
    return Inspection(entry.name, architecture.model_class.__name__, taken, architecture.obstacle)
