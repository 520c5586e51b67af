"""How a device's memory is shared out: what the largest request takes, and what that leaves for rows."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from worker.engine.meter import ByDevice, Space

HOST = torch.device("cpu")
_STEP = 64
"""Contexts that are cut end at a multiple of this, as kernels like it."""
_NARROWER = 2
"""How much shorter the next request is, if one took more than there is."""

PoolBytes = Callable[[int, int], ByDevice]
"""What the cache takes with so many rows of so many tokens, by device."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the largest request took with so many rows of `width` tokens, beside the weights and the cache."""

    num_rows: int
    width: int
    activations: ByDevice
    feature_bytes: int = 0
    """What the media of one prompt take on the host, as the model sees them."""
    is_at_once: bool = False
    """Whether the model encodes all of a prompt's media at once."""

    def prepared(self, device: torch.device) -> int:
        """Return what the media take there before the model has seen them."""
        return self.feature_bytes if device == HOST else 0

    def taken(self, device: torch.device) -> int:
        """Return what the request took there."""
        return self.activations[device] + self.prepared(device)

    def bound(self, device: torch.device, num_rows: int, width: int) -> int:
        """Return what it may take at most with other rows: nothing grows faster than attention's masks do with length.

        With fewer or shorter ones it takes no more than it took.
        """
        growth = max(1.0, width / self.width) ** 2 * max(1.0, num_rows / self.num_rows)
        return int(self.activations[device] * growth)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a worker may take beside its weights, and what is set aside of it before anything else."""

    spaces: Mapping[torch.device, Space]
    share: float
    num_rows: int
    pool_bytes: PoolBytes
    media_bytes: Callable[[int], int]
    """What encoded media take with rows of so many tokens, on the first device."""

    @property
    def first(self) -> torch.device:
        """The device that everything begins on."""
        return next(iter(self.spaces))

    def left(self, device: torch.device) -> int:
        """Return what may be taken there beside the weights."""
        return self.spaces[device].left(self.share)

    def pools(self, device: torch.device, width: int) -> int:
        """Return what the rows take there."""
        return self.pool_bytes(self.num_rows, width).get(device, 0)

    def encoded(self, device: torch.device, width: int) -> int:
        """Return what is set aside there for encoded media."""
        return self.media_bytes(width) if device == self.first else 0

    def over(self, device: torch.device, trial: Trial | None, width: int) -> int:
        """Return what nobody has there with rows of that many tokens, at least; below 0 they don't fit.

        Before any trial only what is known without one is counted.
        """
        over = self.left(device) - self.pools(device, width) - self.encoded(device, width)
        if trial is None:
            return over
        return over - trial.bound(device, self.num_rows, width) - trial.prepared(device)

    def fits(self, trial: Trial | None, width: int) -> bool:
        """Whether rows of that many tokens surely fit, after what a trial with others took."""
        return all(self.over(device, trial, width) >= 0 for device in self.spaces)

    def widest(self, trial: Trial | None, most: int) -> int:
        """Return the longest rows, up to `most`, that surely fit; 0 if none do."""
        return bisect_left(range(1, most + 1), True, key=lambda width: not self.fits(trial, width))

    def most_rows(self, trial: Trial | None, width: int) -> int:
        """Return how many rows of that many tokens surely fit; 0 if none do."""
        rows = range(1, self.num_rows + 1)
        return bisect_left(rows, True, key=lambda num_rows: not replace(self, num_rows=num_rows).fits(trial, width))


def find_width(
    budget: Budget, measure: Callable[[int], Trial | None], least: int, wanted: int
) -> tuple[Trial | None, int]:
    """Return the last trial, and the longest rows up to `wanted` that fit; fewer than `least` tokens if those don't.

    The first trial is of the longest rows that might fit, and a shorter request takes no more than it. `measure`
    returns None where it ran out of memory.
    """
    width = max(least, budget.widest(None, wanted))
    while True:
        trial = measure(width)
        fitting = 0 if trial is None else budget.widest(trial, width)
        if fitting >= least or width == least:
            return trial, _even(fitting, least, wanted)
        width = max(least, width // _NARROWER)


def _even(fitting: int, least: int, wanted: int) -> int:
    return fitting if fitting in (least, wanted) or fitting < _STEP else max(fitting - fitting % _STEP, 0)


def describe(budget: Budget, trial: Trial, width: int, weights: ByDevice) -> Iterator[str]:
    """Yield a line for each device: what may be used there, and for what."""
    for device, space in budget.spaces.items():
        own = weights.get(device, 0)
        parts = {
            "weights": own,
            "else in use": space.total_bytes - space.free_bytes - own,
            "largest request": trial.taken(device),
            f"cache of {budget.num_rows} x {width} tokens": budget.pools(device, width),
            "encoded media": budget.encoded(device, width),
            "left over": budget.over(device, trial, width),
        }
        may = amount(int(space.total_bytes * budget.share))
        told = ", ".join(f"{name} {amount(num_bytes)}" for name, num_bytes in parts.items())
        yield f"memory of {device}: {may} of {amount(space.total_bytes)} may be used: {told}"


def amount(num_bytes: int) -> str:
    """Return a number of bytes for people, as `1.5 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{max(0, num_bytes) / 2**20:.1f} MiB"
