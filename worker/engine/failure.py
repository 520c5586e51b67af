"""What it means that a step raised: too little memory, a device that is lost, or one sequence's own fault."""

from collections.abc import Iterable
from enum import StrEnum

_LOST_DEVICE = ("AcceleratorError", "CUDA error:", "HIP error:", "XPU error:")
_NO_HOST_MEMORY = "DefaultCPUAllocator: "
"""How torch's allocator for the CPU begins to say so; it has no class of its own."""


class Failure(StrEnum):
    """Why the engine gave up a sequence: what it ran into alone, or what nobody else could."""

    BROKE = "broke"
    """The model raised something; the cause is in the log."""
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    """Its constraint couldn't be followed any further."""


class EngineBroken(Exception):
    """No further step can be made in this process; `suspects` are the sequences it broke with."""

    words = "the model's device is lost, and with it this worker; start it again"

    def __init__(self, suspects: Iterable[str]) -> None:
        super().__init__(self.words)
        self.suspects = frozenset(suspects)


class EngineHung(EngineBroken):
    """A step does not end, and nothing in this process can end it."""

    words = "a step of the model took longer than --step_timeout_s, and with it hangs this worker; start it again"


def failure_of(error: Exception) -> Failure:
    """Return what to tell of a sequence that raised this alone."""
    return Failure.OUT_OF_MEMORY if is_out_of_memory(error) else Failure.BROKE


def is_out_of_memory(error: Exception) -> bool:
    """Whether fewer sequences at once might help; torch, which has errors of its own for it, need not be there."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_HOST_MEMORY in str(error)


def has_lost_device(error: Exception) -> bool:
    """Whether every further call would fail as well: the errors of a CUDA context never go away."""
    said = f"{type(error).__name__}: {error}"
    return not is_out_of_memory(error) and any(words in said for words in _LOST_DEVICE)
