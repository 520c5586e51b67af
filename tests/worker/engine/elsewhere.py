"""Devices that aren't the host, where there are none: their tensors hold their numbers in the host's memory.

They refuse what GPUs refuse: operations that mix devices, and within a recording whatever waits for numbers or sends
some. Importing this gives the process such devices for good, so that it is for processes of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretend")
HERE = torch.device("cpu")
ATEN = torch.ops.aten
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}
INDEXING = {ATEN.index.Tensor, ATEN.index_put_.default}
"""Take indices of the host as well, and wait for them."""
STAND_INS = {ATEN.histc.default: lambda given, *sizes: torch.histc(given.float(), *sizes).to(given.dtype)}
"""What only GPUs do with numbers of any type."""


class Away(torch.Tensor):
    """A tensor of such a device; `numbers` are the same ones on the host."""

    @torch.inference_mode()
    def __new__(cls, numbers, device):
        layout = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset()}
        made = cls._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype, device=device, **layout)
        made.numbers = numbers
        return made

    def __repr__(self):
        return f"{self.numbers} on {self.device}"

    def tolist(self):
        """Wait for the numbers."""
        assert Tape.current is None, "a recording waits for numbers"
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class Everything(TorchDispatchMode):
    """Catches what makes tensors there out of none, too."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


@contextmanager
def elsewhere():
    """Let tensors be made there."""
    made = torch.tensor

    def sent(values, dtype=None, device=None):
        """Stand in for `torch.tensor`, whose inside would ask the device for memory."""
        tensor = made(_changed(values, _numbers), dtype=dtype)
        return tensor if device is None else tensor.to(device)

    torch.tensor = sent
    try:
        with torch.inference_mode(), Everything():
            yield
    finally:
        torch.tensor = made


@torch.inference_mode()
def move(module, device):
    """Take a module's weights there, which stands in for `Module.to`; those that are shared stay so."""
    known = {}

    def there(tensor):
        return known.setdefault(id(tensor), (Away(_numbers(tensor).clone(), device), tensor))[0]

    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(part, name, nn.Parameter(there(weight), requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, there(buffer))
    return module


class Tape:
    """Operations on memory that stays where it is, as a CUDA graph has them; what the host knew then is part of it."""

    current: "Tape | None" = None

    def __init__(self):
        self._calls = []

    @contextmanager
    def recording(self):
        """Take down what is asked of the device; what that has made is worth nothing until it is replayed."""
        Tape.current = self
        try:
            yield
        finally:
            Tape.current = None
        for *_, made in self._calls:
            for tensor in made.values():
                tensor.fill_(torch.nan if tensor.is_floating_point() else 0)

    def add(self, function, args, kwargs, outcome):
        """Take down one operation; views of what there was need not be made again."""
        known = {leaf.untyped_storage().data_ptr() for leaf in _tensors((args, kwargs))}
        made = {
            place: leaf
            for place, leaf in enumerate(_tensors(outcome))
            if leaf.untyped_storage().data_ptr() not in known
        }
        if made or function._schema.is_mutable:
            self._calls.append((function, args, kwargs, made))

    def replay(self):
        """Do all of it again."""
        for function, args, kwargs, made in self._calls:
            outcome = _tensors(function(*args, **kwargs))
            for place, tensor in made.items():
                tensor.copy_(outcome[place])


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step, as `CudaCapture` does; return its replay."""
    step()
    tape = Tape()
    with tape.recording():
        step()
    return tape.replay


def _run(function, args, kwargs):
    """Do on the host what is asked of a device."""
    if _is_composite(function):
        with Everything():
            return function.decompose(*args, **kwargs)
    given = _tensors((args, kwargs))
    home = _home(function, args, given, kwargs.get("device"))
    owners = {id(leaf.numbers): leaf for leaf in given if isinstance(leaf, Away)}
    args, kwargs = _changed((args, kwargs), _numbers)
    if "device" in kwargs:
        kwargs["device"] = HERE
    outcome = STAND_INS.get(function, function)(*args, **kwargs)
    if home == HERE:
        return outcome
    if Tape.current is not None:
        assert not _waits(function, args, outcome), f"a recording waits for {function}"
        Tape.current.add(function, args, kwargs, outcome)

    def wrapped(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return owners[id(leaf)] if id(leaf) in owners else Away(leaf, home)

    return _changed(outcome, wrapped)


@cache
def _is_composite(function):
    return torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd")


def _waits(function, args, outcome):
    """Whether the host has to know numbers, if only how many there are."""
    if function in INDEXING:
        return any(index is not None and index.dtype is torch.bool for index in args[1])
    is_number = any(isinstance(leaf, bool | int | float) for leaf in _leaves(outcome))
    return is_number or torch.Tag.dynamic_output_shape in function.tags


def _home(function, args, given, target):
    """Return where the outcome lies."""
    if function in COPIES:
        homes = {leaf.device for leaf in given} | ({torch.device(target)} if target is not None else set())
        assert Tape.current is None or len(homes) == 1, f"a recording copies between {homes}"
        return args[0].device if target is None else torch.device(target)
    if function in INDEXING and Tape.current is None:
        given = [given[0], *(index for index in given[1:] if index.device != HERE)]
    homes = {leaf.device for leaf in given if leaf.ndim > 0 or isinstance(leaf, Away)}
    assert len(homes) < 2, f"{function} mixes {homes}"
    return torch.device(target) if target is not None else next(iter(homes), HERE)


def _numbers(leaf):
    return leaf.numbers if isinstance(leaf, Away) else leaf


def _changed(tree, change):
    """Return arguments, or what was made of them, with each leaf changed."""
    if isinstance(tree, list | tuple):
        return type(tree)([_changed(branch, change) for branch in tree])
    if isinstance(tree, dict):
        return {name: _changed(branch, change) for name, branch in tree.items()}
    return change(tree)


def _leaves(tree) -> Iterator:
    if isinstance(tree, list | tuple | dict):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(branch)
    else:
        yield tree


def _tensors(tree):
    return [leaf for leaf in _leaves(tree) if isinstance(leaf, torch.Tensor)]
