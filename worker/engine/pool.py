"""Tensors for the rows of running sequences."""

import math
from collections.abc import Callable

import numpy as np
import torch

Allocate = Callable[[tuple[int, ...], torch.dtype, torch.device], torch.Tensor]


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros; on the CPU the kernel hands the pages out as they are written, where torch would write them all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(dtype).view(shape)


def overlaid(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a tensor whose lines lie upon each other: it is read and written like any, and takes next to no memory.

    What is read isn't what was written, so it is for finding out what everything else takes.
    """
    *places, line = shape
    num_values = line * (sum(places) - len(places) + 1)
    memory = torch.zeros(num_values, dtype=dtype, device=device)
    return memory.as_strided(shape, (*(line for _ in places), 1))
