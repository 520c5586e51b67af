"""Makes torch's companions importable, or invisible, beside a torch they weren't built for.

The published torchvision and torchaudio are linked to CUDA, and transformers imports them wherever they are installed.
Imported before transformers; beside a torch with CUDA it changes nothing.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[Any] = []
"""Declarations live as long as their library does."""


def settle_torchvision() -> None:
    """Declare the two operators that torchvision's Python half names, if its compiled half doesn't load."""
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _libraries.append(library)
        library.define(f"nms{_SCHEMA}")
        library.define(f"qnms{_SCHEMA}")
        import_module("torchvision")


def settle_torchaudio() -> None:
    """Take torchaudio for absent if it doesn't load."""
    try:
        import_module("torchaudio")
    except (ImportError, OSError):
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # how the import system writes "absent"


settle_torchvision()
settle_torchaudio()
