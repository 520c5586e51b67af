"""Lets a language model begin with two habits: to gather the words of a question, and to look for what they name.

Without them most of the training goes by before the first answer depends on the question. They are a start only;
everything is trained on from there.
"""

from typing import Any

import torch

from tools.demo.concepts import Code
from tools.demo.network import WIDTH
from tools.demo.scene import COLOURS, KINDS

_NUM_NAMED = len(KINDS) + len(COLOURS)
_EVERY_WORD = 0.3
"""How much of one direction all words share, which cells of pictures have nothing of."""
_NEARBY = (4, 5, 6)
_ANYWHERE = (*range(10, 16), *range(26, 32))
"""Dimensions of a head that turn by about a tenth a token, and those that hardly turn at all."""
_GAIN = 0.7
_GATHERED, _FOUND = 0.15, 0.12
"""How strongly what is attended to is written."""


def wire(network: Any) -> None:
    """Give the first two layers their habits."""
    basis = torch.from_numpy(Code(WIDTH).basis())
    presence, named, word = basis[0], basis[1 : 1 + _NUM_NAMED], basis[-1]
    gathering, seeking = network.model.language_model.layers[:2]
    with torch.no_grad():
        words = network.model.language_model.embed_tokens.weight
        words -= words @ basis[: Code.size].T @ basis[: Code.size]
        words += _EVERY_WORD * word
        query, key = (torch.zeros(len(basis) // 4, WIDTH) for _ in range(2))
        for dimension in _NEARBY:
            query[dimension] = key[dimension] = 0.25 * word
        query[_ANYWHERE[-1]] = 0.8 * word
        key[_ANYWHERE[-1]] = 0.8 * (named.sum(0) - 4 * presence)
        _attend(gathering.self_attn, query, key, basis, _GATHERED)
        query, key = (torch.zeros(len(basis) // 4, WIDTH) for _ in range(2))
        for dimension, direction in zip(_ANYWHERE, named, strict=False):
            query[dimension] = key[dimension] = _GAIN * direction
        query[_ANYWHERE[-1]], key[_ANYWHERE[-1]] = 0.9 * word, -0.9 * word
        query[_ANYWHERE[-2]], key[_ANYWHERE[-2]] = 0.3 * word, 0.6 * presence
        _attend(seeking.self_attn, query, key, basis, _FOUND)


def _attend(attention: Any, query: torch.Tensor, key: torch.Tensor, basis: torch.Tensor, strength: float) -> None:
    """Let all heads attend alike, each of them carrying its part of what is attended to."""
    num_heads = len(basis) // len(query)
    attention.q_proj.weight += query.repeat(num_heads, 1)
    attention.k_proj.weight += key.repeat(num_heads, 1)
    attention.v_proj.weight[:-1] += basis[:-1]  # the last direction marks words; what looks at them is none
    attention.o_proj.weight[:, :-1] += strength * basis[:-1].T
