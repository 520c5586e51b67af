"""Whether a step looks at the numbers in its tensors: what it does then may be right for these numbers only."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

_LOOKING = frozenset({torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__})
"""What never reaches the operations below."""
_DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Peek(Exception):
    """A step looked at numbers."""


def unseen(step: Callable[[], T]) -> T:
    """Return what the step returns; raises Peek if it depends on more than the shapes of tensors."""
    with _Calls(), _Operations():  # type: ignore[no-untyped-call]
        return step()


class _Calls(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _LOOKING:
            raise Peek(f"it asks for numbers by {function.__name__}()")
        return function(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(tag in operation.tags for tag in _DEPENDENT) and not _is_plain_index(operation, args):
            raise Peek(f"what {operation} returns depends on numbers")
        return operation(*args, **(kwargs or {}))


def _is_plain_index(operation: Any, args: tuple[Any, ...]) -> bool:
    """Whether it picks places by their numbers, as many as there are numbers, and not those that a mask shows."""
    if operation is not torch.ops.aten.index.Tensor:
        return False
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1])
