"""What the device can do at most, measured in the run that is compared with it."""

import time
from collections.abc import Callable

import torch

NUM_TIMES = 10


def settle(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_s(action: Callable[[], object], device: torch.device, num_times: int = NUM_TIMES) -> float:
    """Return the shortest time of several, after one that doesn't count."""
    times = []
    for _ in range(num_times + 1):
        settle(device)
        began_s = time.perf_counter()
        action()
        settle(device)
        times.append(time.perf_counter() - began_s)
    return min(times[1:])


def bytes_per_s(num_bytes: int, device: torch.device) -> float:
    """Return the bandwidth of memory: a large copy reads and writes."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / time_s(lambda: target.copy_(source), device)


def products_per_s(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return the floating-point operations of a large square matrix product."""
    left, right = torch.randn(2, side, side, dtype=dtype, device=device)
    return 2 * side**3 / time_s(lambda: left @ right, device)
