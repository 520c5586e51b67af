"""The choice of the next token, for all rows at once, each with its own parameters.

The order is transformers': penalties, bias and what may not come, then temperature, top-k, top-p, min-p. The host
waits for nothing here: rows are picked by indices that it sends along, as a list of them would be sent and waited for.
"""

from collections.abc import Sequence as Rows
from math import log

import torch

from shared.job import SamplingParams
from worker.engine.choice import Choice, score
from worker.engine.counts import Counts
from worker.engine.draw import uniform
from worker.engine.sequence import Sequence
from worker.engine.token import Token
from worker.engine.upload import send, upload

MAX_NARROW = 1024
"""Rows that keep this many tokens or fewer are cut without sorting the vocabulary."""


class Sampler:
    """Created with a runner; keeps on its device what penalties count."""

    def __init__(self) -> None:
        self._counts = Counts()

    def choose(self, logits: torch.Tensor, sequences: Rows[Sequence]) -> list[Token]:
        """Return the next token of each row of `logits`, shape [rows, vocab].

        What it is depends on the row's own logits, parameters, tokens so far and seed only.
        """
        return self.pick(logits, sequences).tokens()

    @torch.inference_mode()
    def pick(self, logits: torch.Tensor, sequences: Rows[Sequence], newest: torch.Tensor | None = None) -> Choice:
        """Return the choice before it is known here; `newest`, shape [rows], are the tokens of sequences that fly."""
        chosen = logits.argmax(dim=-1)
        if special := [row for row, sequence in enumerate(sequences) if not sequence.takes_likeliest]:
            rows = upload(special, torch.long, logits.device)
            some = [sequences[row] for row in special]
            given = logits.index_select(0, rows).float()
            known = None if newest is None else newest.index_select(0, rows)
            chosen.index_copy_(0, rows, self._choose_special(given, some, known))
        return Choice(chosen, score(logits, chosen, sequences))

    def _choose_special(
        self, logits: torch.Tensor, sequences: Rows[Sequence], newest: torch.Tensor | None
    ) -> torch.Tensor:
        self.adjust(logits, sequences, newest)
        chosen = logits.argmax(dim=-1)
        if drawn := [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]:
            rows = upload(drawn, torch.long, logits.device)
            chosen.index_copy_(0, rows, _draw(logits.index_select(0, rows), [sequences[row] for row in drawn]))
        return chosen

    def adjust(self, logits: torch.Tensor, sequences: Rows[Sequence], newest: torch.Tensor | None = None) -> None:
        """Apply to the rows in place, shape [rows, vocab], what holds for greedy choices too."""
        self._penalize(logits, sequences, newest)
        _add_biases(logits, sequences)
        _forbid(logits, sequences)

    def _penalize(self, logits: torch.Tensor, sequences: Rows[Sequence], newest: torch.Tensor | None) -> None:
        """Repetition penalty after Keskar et al. 2019 (CTRL), then frequency and presence as OpenAI has them."""
        if not (penalized := [row for row, sequence in enumerate(sequences) if sequence.is_penalized]):
            return
        rows = upload(penalized, torch.long, logits.device)
        known = None if newest is None else newest.index_select(0, rows)
        answers, prompts = self._counts.of([sequences[row] for row in penalized], logits, known)
        params = [sequences[row].sampling for row in penalized]
        penalties = _column([p.repetition_penalty for p in params], logits)
        some = logits.index_select(0, rows)
        repeated = torch.where(some < 0, some * penalties, some / penalties)
        some = torch.where(prompts | (answers > 0), repeated, some)
        some -= _column([p.frequency_penalty for p in params], logits) * answers
        some -= _column([p.presence_penalty for p in params], logits) * (answers > 0)
        logits.index_copy_(0, rows, some)


def _add_biases(logits: torch.Tensor, sequences: Rows[Sequence]) -> None:
    """Add the request's biases, and -inf to the tokens that would end an answer too early."""
    added = [(row, *bias) for row, s in enumerate(sequences) for bias in (*s.sampling.logit_bias, *_early_ends(s))]
    if added:
        rows, token_ids, values = zip(*added, strict=True)
        places = upload([rows, token_ids], torch.long, logits.device).unbind()
        logits.index_put_(places, upload(values, logits.dtype, logits.device), accumulate=True)


def _early_ends(sequence: Sequence) -> list[tuple[int, float]]:
    if sequence.may_end:
        return []
    return [(token_id, -torch.inf) for token_id in sequence.stop_token_ids]


def _forbid(logits: torch.Tensor, sequences: Rows[Sequence]) -> None:
    """Leave what the rows' constraints allow."""
    masks = {row: s.constraint.mask() for row, s in enumerate(sequences) if s.constraint is not None}
    if not masks:
        return
    packed = send(torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.uint8), logits.device)
    places = torch.arange(8, dtype=torch.uint8, device=logits.device)
    forbidden = (packed.view(len(masks), -1, 1) >> places & 1).flatten(1).logical_not()  # [rows, 8 * bytes]
    for row, unknown in zip(masks, forbidden, strict=True):
        logits[row, : len(unknown)].masked_fill_(unknown[: logits.shape[-1]], -torch.inf)
        logits[row, len(unknown) :] = -torch.inf


def distribution(logits: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """Return the probabilities that adjusted rows are drawn by, shape [rows, vocab]."""
    temperatures = _column([s.sampling.temperature for s in sequences], logits).clamp(min=1e-6)
    # The largest is subtracted first, so that a tiny temperature can't overflow.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperatures
    return scaled.masked_fill(scaled < _floor(scaled, sequences), -torch.inf).softmax(dim=-1)


def _draw(logits: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """Return tokens, shape [rows]: the inverse of the distribution, in the order of their ids."""
    cumulative = distribution(logits, sequences).cumsum(dim=-1)
    total = cumulative[:, -1:]
    uniforms = _column([uniform(s.sampling.seed, s.num_chosen) for s in sequences], logits)
    below = total.nextafter(torch.zeros_like(total))  # or rounding may put a target past the end
    return torch.searchsorted(cumulative, (uniforms * total).minimum(below), right=True).squeeze(-1)


def _floor(scaled: torch.Tensor, sequences: Rows[Sequence]) -> torch.Tensor:
    """Return the least logit that may be drawn, shape [rows, 1], where the likeliest token's is 0.

    Tokens that tie are kept or cut together, so that no order among them matters.
    """
    vocab = scaled.shape[-1]
    params = [sequence.sampling for sequence in sequences]
    floor = _column([log(p.min_p) if p.min_p else -torch.inf for p in params], scaled)
    narrow = [row for row, p in enumerate(params) if 0 < p.top_k <= min(MAX_NARROW, vocab)]
    wide = [row for row, p in enumerate(params) if row not in narrow and (p.top_p < 1 or 0 < p.top_k < vocab)]
    if narrow:
        rows = upload(narrow, torch.long, scaled.device)
        values = scaled.index_select(0, rows).topk(max(params[row].top_k for row in narrow)).values
        _raise(floor, rows, _least_kept(values, [params[row] for row in narrow]))
    if wide:
        rows = upload(wide, torch.long, scaled.device)
        values = scaled.index_select(0, rows).sort(dim=-1, descending=True).values
        _raise(floor, rows, _least_kept(values, [params[row] for row in wide]))
    return floor


def _raise(floor: torch.Tensor, rows: torch.Tensor, least: torch.Tensor) -> None:
    floor.index_copy_(0, rows, floor.index_select(0, rows).maximum(least))


def _least_kept(values: torch.Tensor, params: Rows[SamplingParams]) -> torch.Tensor:
    """Return the last logit that top-k and then top-p keep of a row, shape [rows, 1]; `values` descend."""
    ranks = torch.arange(values.shape[-1], device=values.device)
    by_k = ranks < _column([p.top_k or values.shape[-1] for p in params], values)
    top_p = _column([p.top_p for p in params], values)
    shares = values.masked_fill(~by_k, -torch.inf).softmax(dim=-1)
    by_p = (shares.cumsum(dim=-1) - shares < top_p) | (top_p >= 1) | (ranks == 0)
    return values.gather(-1, (by_k & by_p).sum(dim=-1, keepdim=True) - 1)


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return upload(values, torch.float32, like.device)[:, None]
