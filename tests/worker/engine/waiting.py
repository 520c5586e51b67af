"""Notices what would hold the host until a GPU has done all that was asked of it, where there is no GPU."""

import sys

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READING = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__bool__,
    torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.__contains__, torch.equal,
    torch.Tensor.equal, torch.allclose, torch.Tensor.nonzero, torch.nonzero, torch.masked_select,
    torch.Tensor.masked_select, torch.unique, torch.Tensor.unique,
}  # fmt: skip
SENDING = {torch.tensor, torch.as_tensor, torch.from_numpy, torch.frombuffer}
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
PICKING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}
ROADS = ("worker/engine/upload.py", "worker/engine/choice.py")
"""The only modules that know how to send and to fetch without waiting."""


class Waits(TorchFunctionMode):
    """Calls from Python: values read, tensors made of lists, indices that are lists."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READING or (function in SENDING and not _on_a_road()):
            self.found.append(function.__name__)
        if function in INDEXING and _is_listed(args[1]):
            self.found.append(f"{function.__name__} of a list")
        return function(*args, **(kwargs or {}))


class HiddenWaits(TorchDispatchMode):
    """What torch does beneath: values read, and masks whose number of places only the device knows."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name in PICKING or (name.startswith("aten::index") and _is_masked(args[1:2])):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def waits(action):
    """Return what the action waits for."""
    with Waits() as seen, HiddenWaits() as hidden:
        action()
    return [*seen.found, *hidden.found]


def _is_listed(index):
    """Whether an index is a list, of which torch makes a tensor."""
    return any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,)))


def _is_masked(indices):
    listed = indices[0] if indices and isinstance(indices[0], list | tuple) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype is torch.bool for index in listed)


def _on_a_road():
    frame = sys._getframe(2)
    while frame is not None and "torch" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.endswith(ROADS)
