"""Keys and values of all running sequences, in pools with one row a sequence.

The running sequences always fill the first rows, so a step reads the pools as views and copies nothing.
"""

import math
from typing import Any

import numpy as np
import psutil
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

CACHE_SHARE = 0.7
"""Of the memory that is free beside the weights; the rest is for activations of long prompts and many tiles."""


class AttentionSlots(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """One attention layer's pools; decodes one token a row, each at its own position.

    Sliding layers fit as well: their window is the mask's business.
    """

    is_sliding = False
    is_compileable = True

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        # Zeros, because a masked position still meets the softmax's zero weight, and 0 * nan is nan.
        self.keys = _zeros(shape, dtype, device)  # [rows, heads, width, head_dim]
        self.values = _zeros(shape, dtype, device)
        self.is_initialized = True
        self._rows = torch.arange(shape[0], device=device)
        self._positions = self._rows[:0]
        self._width = 0

    def step(self, positions: torch.Tensor, width: int) -> None:
        """Tell where the next update writes: one position per row, shape [rows]; the view ends before `width`."""
        self._positions, self._width = positions, width

    def put(self, row: int, layer: Any) -> None:
        """Copy a prefilled layer's only row."""
        length = layer.keys.shape[-2]
        self.keys[row, :, :length] = layer.keys[0]
        self.values[row, :, :length] = layer.values[0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one row's first positions over another row's."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token per row, shape [rows, heads, 1, head_dim]; return all rows up to the step's width."""
        count = len(self._positions)
        rows = self._rows[:count]
        self.keys[rows, :, self._positions] = key_states[:, :, 0]
        self.values[rows, :, self._positions] = value_states[:, :, 0]
        return self.keys[:count, :, : self._width], self.values[:count, :, : self._width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the width of the keys and their offset."""
        return self._width, 0

    def get_seq_length(self) -> int:
        """Return the length before this step."""
        return self._width - 1

    def get_max_length(self) -> int:
        """Return the most positions a row holds."""
        width: int = self.keys.shape[-2]
        return width

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the pools exist from the start."""


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The layers of one model's cache; created with the runner and kept for its life."""

    layers: list[AttentionSlots]

    def __init__(self, config: Any, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate `rows` sequences of `width` tokens; raises MemoryError with advice if they don't fit."""
        _check_memory(_bytes_per_token(config, dtype), rows, width, device)
        shape = (rows, config.num_key_value_heads, width, _head_dim(config))
        super().__init__(layers=[AttentionSlots(shape, dtype, device) for _ in range(config.num_hidden_layers)])
        self._device = device
        self._lengths = [0] * rows

    def put(self, row: int, prefilled: Cache) -> None:
        """Copy a cache that one sequence was prefilled into."""
        self._lengths[row] = prefilled.get_seq_length()
        for layer, filled in zip(self.layers, prefilled.layers, strict=True):
            layer.put(row, filled)

    def step(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one more token in each of the first `count` rows.

        Returns the tokens' positions, shape [rows], and which keys each may see, shape [rows, 1, 1, width].
        """
        positions = torch.tensor(self._lengths[:count], device=self._device)
        self._lengths[:count] = [length + 1 for length in self._lengths[:count]]
        width = max(self._lengths[:count])
        for layer in self.layers:
            layer.step(positions, width)
        seen = torch.arange(width, device=self._device)[None] <= positions[:, None]
        return positions, seen[:, None, None]

    def move(self, source: int, target: int) -> None:
        """Copy one row of every layer over another."""
        self._lengths[target] = self._lengths[source]
        for layer in self.layers:
            layer.move(source, target, self._lengths[source])


def fitting_width(config: Any, rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many tokens each of `rows` sequences may have, so that memory is left for the steps themselves."""
    return int(_free_bytes(device) * CACHE_SHARE) // (rows * _bytes_per_token(config, dtype))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros; on the CPU the kernel hands the pages out as they are written, where torch would write them all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(dtype).view(shape)


def _head_dim(config: Any) -> int:
    head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return head_dim


def _bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers."""
    size: int = 2 * config.num_hidden_layers * config.num_key_value_heads * _head_dim(config) * dtype.itemsize
    return size


def _check_memory(bytes_per_token: int, rows: int, width: int, device: torch.device) -> None:
    """Refuse pools larger than what is free, before an allocation half succeeds."""
    if (needed := rows * width * bytes_per_token) <= (free := _free_bytes(device)):
        return
    raise MemoryError(
        f"the cache for {rows} sequences of {width} tokens takes {needed / 2**30:.1f} GiB and {device} has "
        f"{free / 2**30:.1f} GiB free: set --max_model_len {free // (rows * bytes_per_token)} "
        f"or --max_num_seqs {free // (width * bytes_per_token)} or less"
    )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
