"""What the model remembers of all running sequences, in pools with one row a sequence.

The running sequences always fill the first rows, so a step reads the pools as views and copies nothing.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
    get_layer_types_and_kwargs,
)

from worker.engine.pool import Allocate, zeros
from worker.engine.recurrent import StateSlots
from worker.engine.upload import upload

SLIDING = "sliding_attention"
ATTENTION = frozenset({"full_attention", SLIDING})
LINEAR = frozenset({"linear_attention", "conv"})

Mask = torch.Tensor | None | dict[str, torch.Tensor | None]


def layer_kinds(config: Any) -> list[str]:
    """Return the kind of each layer of a language model, by transformers' names."""
    kinds: list[str] = get_layer_types_and_kwargs(config)[0]
    return kinds


def new_cache(config: Any) -> Cache:
    """Return an empty cache for one sequence, which keeps every position whatever the layer looks back at."""
    kinds, arguments = get_layer_types_and_kwargs(config)
    return Cache(
        layers=[
            LinearAttentionLayer(**given) if kind in LINEAR else DynamicLayer()
            for kind, given in zip(kinds, arguments, strict=True)
        ]
    )


class _Filled(Exception):
    """Unwinds a forward once all that was wanted of it lies in the pools."""


class AttentionSlots(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """One attention layer's pools; writes each row's tokens at positions of its own.

    Sliding layers fit as well: their window is the mask's business.
    """

    is_sliding = False
    is_compileable = True

    def __init__(self, sample: Any, rows: int, width: int, allocate: Allocate = zeros) -> None:
        """Allocate `rows` of `width` tokens whose keys and values are as those of `sample`, a prefilled layer.

        Behind each row's last token there is a place for what nobody looks at.
        """
        super().__init__()
        # Zeros, because a masked position still meets the softmax's zero weight, and 0 * nan is nan.
        self.keys, self.values = (  # [rows, heads, width, head_dim]
            allocate((rows, states.shape[1], width + 1, states.shape[3]), states.dtype, states.device)
            for states in (sample.keys, sample.values)
        )
        self.is_initialized = True
        self._indices = torch.arange(rows, device=sample.keys.device)[:, None]
        self.is_goal = False
        """Whether nothing is wanted of a forward once its keys and values are written here."""
        self._rows = slice(0, 0)
        self._positions = self._indices[:0]
        self._width = 0

    def step(self, rows: slice, positions: torch.Tensor, width: int) -> None:
        """Tell where the next update writes, by row, shape [rows, tokens]; the view ends before `width`."""
        self._rows, self._positions, self._width = rows, positions.to(self.keys.device), width

    def put(self, row: int, layer: Any) -> None:
        """Copy a prefilled layer's only row."""
        length = layer.keys.shape[-2]
        self.keys[row, :, :length] = layer.keys[0]
        self.values[row, :, :length] = layer.values[0]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy one row's first positions over another row's."""
        for pool in (self.keys, self.values):
            pool[target, :, :length] = pool[source, :, :length]

    def swap(self, row: int, other: int, length: int, other_length: int) -> None:
        """Let the first positions of two rows change places, as many as each has."""
        for pool in (self.keys, self.values):
            saved = pool[row, :, :length].clone()
            pool[row, :, :other_length] = pool[other, :, :other_length]
            pool[other, :, :length] = saved

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write each row's tokens, shape [rows, heads, tokens, head_dim]; return the rows up to the step's width."""
        rows = self._indices[self._rows]
        self.keys[rows, :, self._positions] = key_states.transpose(1, 2)
        self.values[rows, :, self._positions] = value_states.transpose(1, 2)
        if self.is_goal:
            raise _Filled
        return self.keys[self._rows, :, : self._width], self.values[self._rows, :, : self._width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the width of the keys and their offset."""
        return self._width, 0

    def get_seq_length(self) -> int:
        """Return the length before this step."""
        return self._width - self._positions.shape[1]

    def get_max_length(self) -> int:
        """Return the most positions a row holds."""
        places: int = self.keys.shape[-2]
        return places - 1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the pools exist from the start."""


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The layers of one model's cache; created with the runner and kept for its life."""

    layers: list[AttentionSlots | StateSlots]

    def __init__(self, config: Any, sample: Cache, rows: int, width: int, allocate: Allocate = zeros) -> None:
        """Allocate `rows` sequences of `width` tokens.

        `config` is the language model's, `sample` a cache that the model has filled.
        """
        self._device = _device(sample)
        super().__init__(
            layers=[
                StateSlots(layer, rows) if _is_linear(layer) else AttentionSlots(layer, rows, width, allocate)
                for layer in sample.layers
            ]
        )
        self._kinds = sorted({*layer_kinds(config)})
        self._window: int = getattr(config, "sliding_window", None) or 0
        self._adds_masks = config._attn_implementation == "eager"
        self._lengths = [0] * rows
        self._shifts = [0] * rows
        self.scratch = width
        """The place in each row that no mask ever shows."""

    @property
    def pools(self) -> list[torch.Tensor]:
        """The keys and values of all rows, layer by layer, as far as layers keep each token."""
        return [
            pool for layer in self.layers if isinstance(layer, AttentionSlots) for pool in (layer.keys, layer.values)
        ]

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Let a forward end once the last layer's keys and values are written: of a prompt nothing else is wanted."""
        last = self.layers[-1]
        assert isinstance(last, AttentionSlots)
        last.is_goal = True
        try:
            yield
        except _Filled:
            pass
        finally:
            last.is_goal = False

    def truncate(self, row: int, length: int) -> None:
        """Forget what lies in a row behind the first `length` tokens; states can only be forgotten altogether."""
        self._lengths[row] = length
        for layer in self.layers:
            if isinstance(layer, StateSlots):
                layer.clear(row)

    def shift(self, row: int, shift: int) -> None:
        """Say what a row's positions, as the model sees them, are off the tokens' indices after the prompt (M-RoPE)."""
        self._shifts[row] = shift

    def put(self, row: int, prefilled: Cache) -> None:
        """Copy a cache that one sequence was prefilled into."""
        self._lengths[row] = prefilled.get_seq_length()
        for layer, filled in zip(self.layers, prefilled.layers, strict=True):
            layer.put(row, filled)

    def grow(self, count: int) -> tuple[list[int], list[int]]:
        """Make room for one more token in each of the first `count` rows.

        Returns the tokens' indices, and their positions as the model sees them.
        """
        indices = self._lengths[:count]
        self._lengths[:count] = [index + 1 for index in indices]
        return indices, [index + shift for index, shift in zip(indices, self._shifts[:count], strict=True)]

    def step(self, places: torch.Tensor, indices: torch.Tensor, columns: torch.Tensor) -> Mask:
        """Let the next forward write one token of each of the first rows at its place, both of shape [rows, 1].

        Returns which of the `columns`, 0 to the width less one, each may see: those up to its index, shape
        [rows, 1, 1, width], by kind of layer where there are several. Nothing is asked of the host that the device
        would have to wait for, and no size but those of these tensors, so that a recording holds for any.
        """
        self._tell(slice(0, places.shape[0]), places, columns.shape[0])
        return self._masks(indices, columns)

    def extend(self, row: int, count: int) -> tuple[torch.Tensor, Mask]:
        """Make room for `count` more tokens in one row; return their indices, shape [1, count], and masks as `step`.

        At a row's beginning there is no mask, with which models see from left to right and need no memory for it.
        """
        start = self._lengths[row]
        width = self._lengths[row] = start + count
        indices = torch.arange(start, width, device=self._device)[None]
        self._tell(slice(row, row + 1), indices, width)
        return indices, None if start == 0 else self._masks(indices, self._columns(width))

    def extend_all(self, first: int, counts: list[int]) -> tuple[torch.Tensor, Mask]:
        """Make room for so many more tokens in each of several rows, of which `first` is the first.

        Returns indices, shape [rows, most], and masks as `step`. Behind a row's own tokens the indices are 0; what is
        written for these is never seen.
        """
        rows = slice(first, first + len(counts))
        starts = self._lengths[rows]
        self._lengths[rows] = [start + count for start, count in zip(starts, counts, strict=True)]
        numbers = upload([starts, counts], torch.long, self._device)[..., None]
        columns = torch.arange(max(counts), device=self._device)
        is_own = columns < numbers[1]
        indices = torch.where(is_own, numbers[0] + columns, 0)
        width = max(self._lengths[rows])
        self._tell(rows, torch.where(is_own, indices, self.scratch), width)
        return indices, self._masks(indices, self._columns(width))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of one row over another."""
        self._lengths[target], self._shifts[target] = length, self._shifts[source]
        for layer in self.layers:
            layer.copy(source, target, length)

    def swap(self, row: int, other: int) -> None:
        """Let two rows change places."""
        lengths, shifts = self._lengths, self._shifts
        for layer in self.layers:
            layer.swap(row, other, lengths[row], lengths[other])
        lengths[row], lengths[other] = lengths[other], lengths[row]
        shifts[row], shifts[other] = shifts[other], shifts[row]

    def _tell(self, rows: slice, places: torch.Tensor, width: int) -> None:
        for layer in self.layers:
            layer.step(rows, places, width)

    def _columns(self, width: int) -> torch.Tensor:
        return torch.arange(width, device=self._device)

    def _masks(self, indices: torch.Tensor, columns: torch.Tensor) -> Mask:
        masks = {kind: self._mask(kind, indices, columns) for kind in self._kinds}
        return masks if len(masks) > 1 else masks[self._kinds[0]]

    def _mask(self, kind: str, indices: torch.Tensor, columns: torch.Tensor) -> torch.Tensor | None:
        if kind in LINEAR:
            return None
        seen = columns <= indices[..., None]
        if kind == SLIDING:
            seen &= columns > indices[..., None] - self._window
        return self._additive(seen[:, None]) if self._adds_masks else seen[:, None]

    def _additive(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the mask as attention without a kernel wants it, which adds it to the scores."""
        dtype = next(layer.keys.dtype for layer in self.layers if isinstance(layer, AttentionSlots))
        return torch.zeros(seen.shape, dtype=dtype, device=self._device).masked_fill_(~seen, torch.finfo(dtype).min)


def pool_bytes(sample: Cache, rows: int, width: int) -> dict[torch.device, int]:
    """Return what the pools of `rows` sequences of `width` tokens take, by device; `sample` holds two tokens of one."""
    taken: Counter[torch.device] = Counter()
    for layer in sample.layers:
        if _is_linear(layer):
            given = (*layer.conv_states.values(), *layer.recurrent_states.values())
            for state in (state for state in given if state is not None):
                taken[state.device] += rows * state.nbytes
        else:
            for states in (layer.keys, layer.values):
                taken[states.device] += rows * (width + 1) * states.nbytes // states.shape[2]
    return dict(taken)


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def _device(sample: Cache) -> torch.device:
    device: torch.device = next(layer.keys.device for layer in sample.layers if not _is_linear(layer))
    return device
