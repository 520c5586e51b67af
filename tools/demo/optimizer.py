"""Muon for matrices: momentum whose singular values are all made one (Jordan et al., 2024), and AdamW for the rest."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_MOMENTUM = 0.95
_ROUNDS = 5
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the quintic that drives singular values towards one."""
_RMS = 0.2
"""Size of an update's entries at a learning rate of 1; AdamW's is about the same."""


class Muon(torch.optim.Optimizer):
    """In float32, where a CPU without bfloat16 arithmetic is as fast; matrices of one shape are updated together."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Update all matrices that have gradients."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                directions = _orthogonalize(torch.stack([self._direction(matrix) for matrix in matrices]))
                rate = group["lr"] * _RMS * max(shape) ** 0.5
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=rate)

    def _direction(self, matrix: nn.Parameter) -> torch.Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        momentum = state.setdefault("momentum", torch.zeros_like(matrix))
        momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(momentum, _MOMENTUM)


def _orthogonalize(stacked: torch.Tensor) -> torch.Tensor:
    """Return matrices with singular values of about one, shape [matrices, rows, columns]."""
    is_tall = stacked.shape[1] > stacked.shape[2]
    x: torch.Tensor = stacked.mT if is_tall else stacked
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
