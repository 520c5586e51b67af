"""The choice of the next token, for all rows at once, each with its own parameters."""

from collections.abc import Sequence

import torch

from shared.job import SamplingParams

_MASK = (1 << 64) - 1


def sample(logits: torch.Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> list[int]:
    """Return one token per row of `logits`, shape [rows, vocab].

    `positions` are the indices the tokens will have in their answers; with the row's seed they fix the draw.
    """
    if all(p.temperature == 0 for p in params):
        return logits.argmax(dim=-1).tolist()
    uniforms = [uniform(p.seed, position) for p, position in zip(params, positions, strict=True)]
    return _draw(logits.float(), params, torch.tensor(uniforms, device=logits.device)).tolist()


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that belongs to this seed and position."""
    return (_mix(_mix(seed & _MASK) + position & _MASK) >> 11) * 2.0**-53


def _mix(state: int) -> int:
    """One output of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit."""
    state = state + 0x9E3779B97F4A7C15 & _MASK
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
    return state ^ state >> 31


def _draw(logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: torch.Tensor) -> torch.Tensor:
    """Return tokens, shape [rows]: inverse of the kept tokens' distribution, likeliest first."""
    likeliest, token_ids = logits.sort(dim=-1, descending=True, stable=True)  # [rows, vocab]
    temperatures = _column([p.temperature or 1.0 for p in params], logits).clamp(min=1e-6)
    # The largest is subtracted first, so that a tiny temperature can't overflow.
    probabilities = ((likeliest - likeliest[:, :1]) / temperatures).softmax(dim=-1)
    kept = probabilities * _kept(probabilities, params)
    cumulative = kept.cumsum(dim=-1)
    targets = uniforms[:, None].to(cumulative.dtype) * cumulative[:, -1:]
    ranks = torch.searchsorted(cumulative, targets, right=True)
    last_kept = kept.count_nonzero(dim=-1)[:, None] - 1  # rounding may put a target past the end
    return token_ids.gather(-1, ranks.minimum(last_kept)).squeeze(-1)


def _kept(probabilities: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Return which ranks may be drawn, shape [rows, vocab]; a greedy row keeps its first one."""
    vocab = probabilities.shape[-1]
    top_k = _column([1 if p.temperature == 0 else p.top_k or vocab for p in params], probabilities)
    top_p = _column([p.top_p for p in params], probabilities)
    ranks = torch.arange(vocab, device=probabilities.device)
    by_k = ranks < top_k
    # top-p counts what top-k left
    share = probabilities * by_k
    share = share / share.sum(dim=-1, keepdim=True)
    by_p = (share.cumsum(dim=-1) - share < top_p) | (top_p >= 1) | (ranks == 0)
    return by_k & by_p


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
