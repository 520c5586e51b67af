"""How Qwen-VL reads past the length it was trained on: two changes to attention, each row with its own."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "baton_logn"
"""The name under which transformers finds `attend`."""


@dataclass(frozen=True, slots=True)
class LengthTricks:
    """What one checkpoint does beyond its trained length (modeling_qwen.py of 2023)."""

    trained: int
    """In tokens."""
    has_dynamic_ntk: bool
    has_logn: bool

    def ntk_alpha(self, prompt_length: int) -> float:
        """Return what stretches the rotary base; the prompt decides it for the whole answer."""
        if not self.has_dynamic_ntk:
            return 1.0
        return float(max(2 ** math.ceil(math.log2(prompt_length / self.trained) + 1) - 1, 1))

    def query_scale(self, positions: torch.Tensor) -> torch.Tensor | None:
        """Return each position's factor of the query, shape [rows, tokens]; None if there is none."""
        if not self.has_logn:
            return None
        return ((positions + 1).clamp(min=self.trained).double().log() / math.log(self.trained)).float()


def rotation(
    positions: torch.Tensor, ntk_alpha: torch.Tensor, base: float, head_dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rotary cosines and sines, shape [rows, tokens, head_dim], for positions of shape [rows, tokens].

    `ntk_alpha`, shape [rows], spreads the wavelengths of each row.
    """
    stretched = (base * ntk_alpha.double() ** (head_dim / (head_dim - 2))).float()  # [rows]
    powers = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    frequencies = 1.0 / stretched[:, None] ** powers  # [rows, head_dim / 2]
    angles = positions[..., None].float() * frequencies[:, None]
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    query_scale: torch.Tensor | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as torch does, with queries of shape [rows, heads, tokens, head_dim] scaled by [rows, tokens] first."""
    if query_scale is not None:
        query = query * query_scale[:, None, :, None].to(query.dtype)
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
    return attended


AttentionInterface.register(ATTENTION, attend)
