"""Qwen-VL's eyes: CLIP's blocks between a stem and a resampler of its own (visual.py of 2023)."""

import torch
from torch import nn
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder

NUM_QUERIES = 256
_HEAD_WIDTH = 128
_GRID = 16
"""Side of the square of positions that both tables of positions hold."""
_EPS = 1e-6


class Resampler(nn.Module):
    """Reads all patches with a fixed number of learnt queries."""

    def __init__(self, width: int, patch_width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(NUM_QUERIES, width))
        self.pos_embed = nn.Parameter(torch.empty(_GRID**2, width))
        self.kv_proj = nn.Linear(patch_width, width, bias=False)
        self.ln_q = nn.LayerNorm(width, eps=_EPS)
        self.ln_kv = nn.LayerNorm(width, eps=_EPS)
        self.attn = nn.MultiheadAttention(width, width // _HEAD_WIDTH, batch_first=True)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return shape [pictures, queries, width]; positions are for finding patches, not part of what is read."""
        values = self.ln_kv(self.kv_proj(patches))  # [pictures, patches, width]
        keys = values + stretch(self.pos_embed, patches.shape[1])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(patches), -1, -1)
        read: torch.Tensor = self.attn(queries, keys, values, need_weights=False)[0]
        return read


class VisionTower(nn.Module):
    """From pixels to the rows that take a picture's places in the prompt."""

    def __init__(self, config: CLIPVisionConfig, width: int) -> None:
        super().__init__()
        side, patch_width = config.patch_size, config.hidden_size
        self.conv1 = nn.Conv2d(3, patch_width, kernel_size=side, stride=side, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(_GRID**2, patch_width))
        self.ln_pre = nn.LayerNorm(patch_width, eps=_EPS)
        self.encoder = CLIPEncoder(config)
        self.attn_pool = Resampler(width, patch_width)
        self.ln_post = nn.LayerNorm(width, eps=_EPS)
        self.proj = nn.Parameter(torch.empty(width, width))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return shape [pictures, queries, width] for pixels of shape [pictures, 3, side, side]."""
        patches = self.conv1(pixel_values).flatten(2).transpose(1, 2)  # [pictures, patches, patch_width]
        patches = self.ln_pre(patches + stretch(self.positional_embedding, patches.shape[1]))
        patches = self.encoder(inputs_embeds=patches).last_hidden_state
        rows: torch.Tensor = self.ln_post(self.attn_pool(patches)) @ self.proj
        return rows


def stretch(table: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Return a square table of positions, shape [rows, width], for a square of so many patches."""
    sides = [int(count**0.5) for count in (len(table), num_patches)]
    if sides[0] == sides[1]:
        return table
    square = table.float().reshape(1, sides[0], sides[0], -1).permute(0, 3, 1, 2)
    wide = interpolate(square, size=(sides[1], sides[1]), mode="bicubic", align_corners=False)
    return wide.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)
