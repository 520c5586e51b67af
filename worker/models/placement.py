"""A model that was read on the CPU goes to its devices layer by layer, and is quantised on the way.

Several devices share the language model's layers, which run one after the other whatever device they are on.
"""

from functools import partial
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from worker.engine.call import find_decoder
from worker.models.device import Placement
from worker.models.family import LoadError
from worker.models.quantization import Quantization, check_worth, quantize

_CACHE = "past_key_values"
"""What layers share and nothing moves: each layer's part of it lies where the layer does."""


def place(model: Any, placement: Placement) -> None:
    """Bring a model where it belongs, unless it was read to there; raises LoadError if it can't be."""
    if placement.is_direct:
        return
    decoder, is_quantized = find_decoder(model), placement.quantization is not Quantization.NONE
    if not isinstance(layers := getattr(decoder, "layers", None), nn.ModuleList):
        raise LoadError(f"{type(decoder).__name__} can be neither quantised nor spread: its layers aren't known")
    if is_quantized:
        check_worth(layers, placement.quantization)
    homes = spread(model, layers, placement)
    for layer, home in zip(layers, homes, strict=True):
        if is_quantized:
            quantize(layer, placement.quantization, home)
        layer.to(home)
    decoder.layers = nn.ModuleList()  # the layers stay where they are
    model.to(placement.devices[0])
    decoder.layers = layers
    if len(placement.devices) > 1:
        connect(layers, homes)


def spread(model: nn.Module, layers: nn.ModuleList, placement: Placement) -> list[torch.device]:
    """Return each layer's device, in order: equal shares of bytes, of which the first has all that is no layer."""
    unquantised = [_num_bytes(layer) for layer in layers]
    sizes = [size * placement.shrinkage for size in unquantised]
    held = float(_num_bytes(model) - sum(unquantised))
    rest, waiting = held + sum(sizes), list(placement.devices)
    homes: list[torch.device] = []
    for size in sizes:
        if homes and len(waiting) > 1 and held + size / 2 > rest / len(waiting):
            rest, held, waiting = rest - held, 0.0, waiting[1:]
        homes.append(waiting[0])
        held += size
    return homes


def connect(layers: nn.ModuleList, homes: list[torch.device]) -> None:
    """Have each layer's arguments brought to it, and what the last one returns to the first one's device."""
    for layer, home in zip(layers, homes, strict=True):
        layer.register_forward_pre_hook(partial(_fetch, home), with_kwargs=True)
    layers[-1].register_forward_hook(partial(_bring_back, homes[0]))


def _fetch(home: torch.device, layer: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return send_to_device(arguments, home), send_to_device(named, home, skip_keys=_CACHE)


def _bring_back(home: torch.device, layer: nn.Module, arguments: Any, output: Any) -> Any:
    return send_to_device(output, home)


def _num_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.parameters())
