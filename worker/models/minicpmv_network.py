"""MiniCPM-V 2.5 and 2.6 as a network: native vision tower and language model, and the resampler between them.

Its parts are named as in the original checkpoints, so that their weights need no renaming.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from worker.models.minicpmv_config import MiniCPMVConfig

_LANGUAGE_MODELS = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}
_PATCHES_AT_ONCE = 16 * 1100
"""Sixteen tiles of the usual size, as many as the authors encode together."""

Grids = list[tuple[int, int]]
"""(rows, columns) of each tile's patches."""


class CrossAttention(nn.Module):
    """Attention with the stacked weights of `torch.nn.MultiheadAttention`, whose own passes its output layer by.

    Here that is a layer like any other, so that an adapter may change what it computes.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        """Return [batch, queries, width]; `seen` says which keys are, as [batch, keys]."""
        stacked = zip((queries, keys, values), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        query, key, value = (self._heads(linear(*part)) for part in stacked)
        found = scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        out: torch.Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        size = projected.shape[-1] // self.num_heads
        return projected.view(*projected.shape[:-1], self.num_heads, size).transpose(1, 2)


class Resampler(nn.Module):
    """Sums each tile up in a fixed number of vectors, by queries that attend to its patches."""

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.query = nn.Parameter(torch.empty(config.query_num, width))
        self.kv_proj = nn.Linear(config.vision_config.hidden_size, width, bias=False)
        self.attn = CrossAttention(width, width // 128)  # the authors' only head size
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.proj = nn.Parameter(torch.empty(width, width))

    def forward(self, patches: torch.Tensor, grids: Grids) -> torch.Tensor:
        """Return [tiles, query_num, width] of patches [tiles, longest, vision width]; what a grid lacks is padding."""
        values = self.ln_kv(self.kv_proj(patches))
        places = pad_sequence([_waves(grid, values) for grid in grids], batch_first=True)
        keys = values + pad(places, (0, 0, 0, values.shape[1] - places.shape[1]))
        queries = self.ln_q(self.query).expand(len(grids), -1, -1)
        found = self.attn(queries, keys, values, _real(grids, values.shape[1], values.device))
        summary: torch.Tensor = self.ln_post(found) @ self.proj
        return summary


class MiniCPMV(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """What the engine runs: pictures are put in at prefill, steps go through to the language model."""

    config_class = MiniCPMVConfig
    _supports_sdpa = True

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        self.llm = _LANGUAGE_MODELS[config.text_config.model_type](config.text_config)
        self.vpm = Idefics2VisionTransformer(config.vision_config)
        self.resampler = Resampler(config)
        self.post_init()

    def get_decoder(self) -> Any:
        """Return the language model, which transformers doesn't look for under its name here."""
        return self.llm

    def get_image_features(
        self, pixel_values: torch.Tensor, tile_grids: torch.Tensor, longest: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Return what `see` does, as transformers' own models do."""
        return BaseModelOutputWithPooling(pooler_output=self.see(pixel_values, tile_grids, longest))

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        tile_grids: torch.Tensor | None = None,
        longest: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the language model; the first placeholders in the only row of ids stand for the tiles given."""
        embeds = self.llm.get_input_embeddings()(input_ids)
        if pixel_values is not None and tile_grids is not None:
            mm_encoder_outputs = {"image": self.get_image_features(pixel_values, tile_grids, longest)}
        if mm_encoder_outputs is not None:
            seen = mm_encoder_outputs["image"].pooler_output.flatten(0, 1)
            # An answer that is continued may hold the token as well, behind the prompt's.
            places = (input_ids[0] == self.config.image_token_id).nonzero()[: len(seen), 0]
            embeds[0, places] = seen
        return self.llm(inputs_embeds=embeds, **kwargs)

    def see(
        self, pixel_values: torch.Tensor, tile_grids: torch.Tensor, longest: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return [tiles, query_num, width] of tiles laid out as strips of patches, end to end: [3, patch, pixels].

        They are padded to as many patches as the longest has, or one of their prompt that isn't among them.
        """
        grids = [(rows, columns) for rows, columns in tile_grids.tolist()]
        num_padded = max(rows * columns for rows, columns in grids) if longest is None else int(longest)
        strips = self._strips(pixel_values.to(self.dtype), grids)
        at_once = max(1, _PATCHES_AT_ONCE // num_padded)
        chunks = (slice(start, start + at_once) for start in range(0, len(grids), at_once))
        return torch.cat([self._see_together(strips[chunk], grids[chunk], num_padded) for chunk in chunks])

    def _strips(self, pixel_values: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        size = self.config.vision_config.patch_size
        return torch.split(pixel_values, [rows * columns * size for rows, columns in grids], dim=-1)

    def _see_together(self, strips: Sequence[torch.Tensor], grids: Grids, longest: int) -> torch.Tensor:
        size = self.config.vision_config.patch_size
        pixels = torch.stack([pad(strip, (0, longest * size - strip.shape[-1])) for strip in strips])
        patches = self.vpm.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        places = torch.stack(list(self._places(grids, longest))).to(patches.device)
        # 2.5 was trained with tiles that see the padding of their companions.
        seen = None if self.config.has_flat_positions else _real(grids, longest, patches.device)[:, None, None]
        embeds = patches + self.vpm.embeddings.position_embedding(places)
        encoded = self.vpm.encoder(inputs_embeds=embeds, attention_mask=seen).last_hidden_state
        summary: torch.Tensor = self.resampler(self.vpm.post_layernorm(encoded), grids)
        return summary

    def _places(self, grids: Grids, longest: int) -> Iterator[torch.Tensor]:
        """Yield each tile's rows of the position table, shape [longest]."""
        side = self.vpm.embeddings.num_patches_per_side
        for rows, columns in grids:
            if self.config.has_flat_positions:  # 2.5 takes every tile for one line as long as the longest
                yield spread(longest, side)
            else:
                places = spread(rows, side)[:, None] * side + spread(columns, side)
                yield pad(places.flatten(), (0, longest - rows * columns))


def spread(length: int, side: int) -> torch.Tensor:
    """Return which of a table's `side` positions each of `length` patches has.

    The float32 progressions are the original's to the last bit: any other rounding moves patches to other positions.
    """
    step = torch.tensor(length, dtype=torch.float32).reciprocal().item()
    edges = torch.arange(1 / side, 1.0, 1 / side)
    return torch.bucketize(torch.arange(0, 1 - 1e-6, step), edges, right=True)


def _real(grids: Grids, longest: int, device: torch.device) -> torch.Tensor:
    """Return which patches are a tile's own, shape [tiles, longest]."""
    lengths = torch.tensor([rows * columns for rows, columns in grids], device=device)
    return torch.arange(longest, device=device) < lengths[:, None]


def _waves(grid: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of each patch's column, then of its row, shape [patches, width]."""
    width = like.shape[-1]
    rates = 10000 ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angles = torch.arange(max(grid), dtype=torch.float32)[:, None] * rates
    by_place = torch.cat([angles.sin(), angles.cos()], dim=1).to(like)  # [side, width / 2]
    rows, columns = grid
    by_row, by_column = by_place[:rows, None].expand(-1, columns, -1), by_place[:columns].expand(rows, -1, -1)
    return torch.cat([by_column, by_row], dim=-1).flatten(0, 1)
