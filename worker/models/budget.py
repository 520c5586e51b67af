"""How a device's memory is shared out: what the largest request takes, and what that leaves for rows."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from worker.engine.meter import ByDevice, Space

_SMALLEST_GAIN = 17 / 16
"""A trial of a longer context is worth it only for so much more."""
_STEP = 64
"""Contexts that are cut end at a multiple of this, as kernels like it."""

PoolBytes = Callable[[int, int], ByDevice]
"""What the cache takes with so many rows of so many tokens, by device."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the largest request took with so many rows of `width` tokens, beside the weights and the cache."""

    num_rows: int
    width: int
    activations: ByDevice
    feature_bytes: int
    """What the media of its largest prompt take on the host, as the model sees them."""
    most_at_once: int
    """The same where the model encodes all of a prompt's media at once, else 0."""

    def longer(self, budget: "Budget", width: int, feature_bytes: int, most_at_once: int) -> "Trial":
        """Return what surely suffices for longer rows, whose media take so much."""
        activations = {device: self.bound(device, self.num_rows, width) for device in budget.spaces}
        return Trial(self.num_rows, width, activations, feature_bytes, most_at_once)

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
    """What encoded media take with rows of so many tokens, on the device that everything begins on: the first."""

    @property
    def first(self) -> torch.device:
        """The device that everything begins on."""
        return next(iter(self.spaces))

    def left(self, device: torch.device) -> int:
        """Return what may be taken there beside the weights."""
        return self.spaces[device].left(self.share)

    def with_rows(self, num_rows: int) -> "Budget":
        """Return the same for another number of rows."""
        return replace(self, num_rows=num_rows)

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
        activations = 0 if trial is None else trial.bound(device, self.num_rows, width)
        return self.left(device) - activations - self.pools(device, width) - self.encoded(device, width)

    def fits(self, trial: Trial | None, width: int) -> bool:
        """Whether rows of that many tokens surely fit, after what a trial with others took."""
        return all(self.over(device, trial, width) >= 0 for device in self.spaces)

    def widest(self, trial: Trial, most: int) -> int:
        """Return the longest rows, up to `most`, that surely fit; 0 if none do."""
        return bisect_left(range(1, most + 1), True, key=lambda width: not self.fits(trial, width))

    def most_rows(self, trial: Trial | None, width: int) -> int:
        """Return how many rows of that many tokens surely fit; 0 if none do."""
        rows = range(1, self.num_rows + 1)
        return bisect_left(rows, True, key=lambda num_rows: not self.with_rows(num_rows).fits(trial, width))


def find_widest(budget: Budget, measure: Callable[[int], Trial], least: int, wanted: int) -> Trial:
    """Return the trial of the longest rows that fit, up to `wanted`; if not even its own do, of the shortest tried.

    Begins with `least`, and never tries what might not fit.
    """
    trial = measure(min(least, wanted))
    while (width := _next(budget, trial, wanted)) is not None:
        longer = measure(width)
        if not budget.fits(longer, width):
            return trial
        trial = longer
    return trial


def _next(budget: Budget, trial: Trial, wanted: int) -> int | None:
    if trial.width == wanted or not budget.fits(trial, trial.width):
        return None
    width = budget.widest(trial, wanted)
    if width == wanted:
        return wanted
    width -= width % _STEP
    return width if width > trial.width * _SMALLEST_GAIN else None


def describe(budget: Budget, trial: Trial, weights: ByDevice) -> Iterator[str]:
    """Yield a line for each device: what may be used there, and for what."""
    for device, space in budget.spaces.items():
        own = weights.get(device, 0)
        parts = {
            "weights": own,
            "else in use": space.total_bytes - space.free_bytes - own,
            "largest request": trial.activations[device],
            f"cache of {budget.num_rows} x {trial.width} tokens": budget.pools(device, trial.width),
            "encoded media": budget.encoded(device, trial.width),
            "left over": budget.over(device, trial, trial.width),
        }
        may = amount(int(space.total_bytes * budget.share))
        told = ", ".join(f"{name} {amount(num_bytes)}" for name, num_bytes in parts.items())
        yield f"memory of {device}: {may} of {amount(space.total_bytes)} may be used: {told}"


def amount(num_bytes: int) -> str:
    """Return a number of bytes for people, as `1.5 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{max(0, num_bytes) / 2**20:.1f} MiB"
