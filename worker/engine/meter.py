"""What devices have, and the most that something takes of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch

from worker.engine import host

T = TypeVar("T")
ByDevice = dict[torch.device, int]


@dataclass(frozen=True, slots=True)
class Space:
    """One device's memory, as a worker finds it with its weights loaded; on the CPU what it may have by itself."""

    total_bytes: int
    free_bytes: int

    def left(self, share: float) -> int:
        """Return how much more may be taken, so that no more than that share of all is in use."""
        return self.free_bytes - self.total_bytes + int(share * self.total_bytes)


def find_space(device: torch.device) -> Space:
    """Return what a device has, and what nobody uses; on the CPU what this process may have, and has not."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return Space(total, free)
    limit, taken = host.tightest()
    return Space(limit, limit - taken)


class Meter:
    """Tells what is taken beside that which lay on the devices when it was created."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._before = {device: (_allocated(device), _foreign(device)) for device in devices}

    def peak(self, action: Callable[[], T]) -> tuple[T, ByDevice]:
        """Return what an action returns, and the most that lay on each device at once while it was carried out."""
        for device in self._before:
            _reset(device)
        returned = action()
        return returned, {
            device: _peak(device) - allocated + max(0, _foreign(device) - foreign)
            for device, (allocated, foreign) in self._before.items()
        }


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else host.resident_bytes()


def _foreign(device: torch.device) -> int:
    """Return what lies on a GPU and isn't torch's: contexts, libraries' workspaces, other programs."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        host.reset_peak()


def _peak(device: torch.device) -> int:
    if device.type != "cuda":
        return host.peak_bytes()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()  # what recorded steps hold stays, though nothing lies there between two of them
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.max_memory_allocated(device) + held
