"""A language model's linear layers in fewer bits, by libraries that need not be installed.

Every format keeps weights only: what a row computes depends on no other row.
"""

from collections.abc import Iterator
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from worker.models.family import LoadError


class Quantization(StrEnum):
    """The formats, by the names of `--quantization`."""

    NONE = "none"
    BNB_INT8 = "bnb-int8"
    BNB_NF4 = "bnb-nf4"
    TORCHAO_INT8 = "torchao-int8"

    @property
    def library(self) -> str | None:
        """The package it takes."""
        return None if self is Quantization.NONE else "torchao" if self is Quantization.TORCHAO_INT8 else "bitsandbytes"

    @property
    def bits(self) -> float:
        """What a weight takes, scales included; what isn't quantised has a precision of its own."""
        return 4.13 if self is Quantization.BNB_NF4 else 8.0


LEAST_SHARE = 0.5
"""Of a language model's weights; where most of them aren't linear layers, as fused experts, little would be won."""


class Int8Linear(nn.Linear):
    """Rows of int8, each with a scale (bitsandbytes' `int8_vectorwise_quant`); inputs are never rounded.

    LLM.int8() would round them, all but columns in which any row of the batch has an outlier: a row's answer would
    depend on its neighbours.
    """

    scale: torch.Tensor  # [out, 1]

    def __init__(self, linear: nn.Linear) -> None:
        from bitsandbytes.functional import int8_vectorwise_quant

        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        rows, largest, _ = int8_vectorwise_quant(linear.weight.data.half())
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.bias = linear.bias
        self.register_buffer("scale", largest[:, None] / 127)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # as torch names it
        """Compute in the input's precision."""
        return nn.functional.linear(input, self.weight.to(input.dtype).mul_(self.scale), self.bias)


def check_installed(quantization: Quantization) -> None:
    """Raise LoadError if the library that it takes is missing."""
    library = quantization.library
    if library is not None and find_spec(library) is None:
        raise LoadError(
            f"--quantization {quantization} takes {library}, which isn't installed: pip install 'baton[quantization]'"
        )


def check_worth(layers: nn.Module, quantization: Quantization) -> None:
    """Raise LoadError if most of the layers' weights would stay as they are."""
    all_weights = sum(weight.numel() for weight in layers.parameters())
    share = sum(linear.weight.numel() for _, linear in _linears(layers)) / all_weights
    if share < LEAST_SHARE:
        raise LoadError(
            f"--quantization {quantization} would leave {1 - share:.0%} of the language model's weights as they are, "
            "because they aren't linear layers: leave it out"
        )


def quantize(layer: nn.Module, quantization: Quantization, device: torch.device) -> None:
    """Bring a layer's linear layers to the device one after the other, each in its new format."""
    for name, linear in list(_linears(layer)):
        layer.set_submodule(name, _quantized(linear.to(device), quantization))


def _linears(layer: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in layer.named_modules():
        if type(module) is nn.Linear:
            yield name, module


def _quantized(linear: nn.Linear, quantization: Quantization) -> nn.Module:
    match quantization:
        case Quantization.BNB_INT8:
            return Int8Linear(linear)
        case Quantization.BNB_NF4:
            return _nf4(linear)
        case Quantization.TORCHAO_INT8:
            return _torchao_int8(linear)
        case Quantization.NONE:
            return linear


def _nf4(linear: nn.Linear) -> nn.Module:
    """Return blocks of 64 normal floats whose scales are quantised as well, as in QLoRA's and ms-swift's training."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = linear.weight.data
    blocks = Params4bit(weight, compress_statistics=True, quant_type="nf4").to(weight.device)
    layer: Any = Linear4bit(linear.in_features, linear.out_features, False, weight.dtype, device="meta")
    layer.weight, layer.bias = blocks, linear.bias
    layer.support_avx512bf16_for_cpu = False  # its kernel computes in bf16 whatever is asked
    quantized: nn.Module = layer
    return quantized


def _torchao_int8(linear: nn.Linear) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(linear, Int8WeightOnlyConfig(set_inductor_config=False))
    return linear
