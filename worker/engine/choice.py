"""Tokens that were chosen on the device, on their way to the host."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from worker.engine.sequence import Sequence
from worker.engine.token import Scored, Token
from worker.engine.upload import upload

LEAST_LOGPROB = -9999.0
"""What OpenAI tells of a token that can't come; JSON knows no infinity."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of those rows that ask for them."""

    asked: dict[int, int]
    """By row, how many of the likeliest tokens it wants."""
    own: torch.Tensor  # [asked]
    top_ids: torch.Tensor  # [asked, most wanted]
    top: torch.Tensor

    def arrived(self) -> "Scores":
        """Return them on the host, once a copy has come there."""
        return Scores(self.asked, *(_sent(tensor) for tensor in (self.own, self.top_ids, self.top)))

    def by_row(self) -> dict[int, tuple[float, tuple[Scored, ...]]]:
        """Return each row's own and its likeliest tokens'."""
        listed = zip(self.asked.items(), self.own.tolist(), self.top_ids.tolist(), self.top.tolist(), strict=True)
        return {row: (own, tuple(map(Scored, ids[:num], best[:num]))) for (row, num), own, ids, best in listed}


class Choice:
    """The next token of each row; created by the sampler."""

    def __init__(self, token_ids: torch.Tensor, scores: Scores | None) -> None:
        self.token_ids = token_ids
        """On the device, shape [rows]."""
        self._token_ids = _sent(token_ids)
        self._scores = None if scores is None else scores.arrived()
        self._arrival = _arrival(token_ids.device)

    def tokens(self) -> list[Token]:
        """Wait until they are here."""
        if self._arrival is not None:
            self._arrival.synchronize()
        scores = {} if self._scores is None else self._scores.by_row()
        return [Token(token_id, *scores.get(row, ())) for row, token_id in enumerate(self._token_ids.tolist())]


def score(logits: torch.Tensor, chosen: torch.Tensor, sequences: Rows[Sequence]) -> Scores | None:
    """Return what rows ask about their chosen tokens, shape [rows]; None if nobody asks."""
    asked = {row: num for row, s in enumerate(sequences) if (num := s.sampling.num_logprobs) is not None}
    if not asked:
        return None
    rows = upload([*asked], torch.long, logits.device)
    logprobs = logits.index_select(0, rows).float().log_softmax(dim=-1).clamp(min=LEAST_LOGPROB)
    own = logprobs.gather(-1, chosen.index_select(0, rows)[:, None]).squeeze(-1)
    top = logprobs.topk(min(max(asked.values()), logprobs.shape[-1]))
    return Scores(asked, own, top.indices, top.values)


def _sent(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor on the host, where a GPU's is complete once all that was asked of it is done."""
    return tensor.to("cpu", non_blocking=True)


def _arrival(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
