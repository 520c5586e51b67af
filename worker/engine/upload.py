"""The way of small numbers to the device, on which nobody waits.

A copy from memory that may be paged out would hold the host until the device has done all that was asked of it.
"""

from typing import Any

import torch


def upload(values: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return numbers of the host as a tensor on the device."""
    return send(torch.tensor(values, dtype=dtype), device)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a host's tensor on the device; its pinned copy isn't used again before it has arrived."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
