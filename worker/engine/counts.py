"""How often each token stands in the sequences that are penalised for it, on the device."""

from collections.abc import Sequence as Rows
from weakref import WeakKeyDictionary

import torch

from worker.engine.sequence import Sequence
from worker.engine.upload import upload


class Counts:
    """One row for each sequence that asks, wherever it stands in a batch; that of a sequence that is gone is free."""

    def __init__(self) -> None:
        self._rows: WeakKeyDictionary[Sequence, int] = WeakKeyDictionary()
        self._num_counted: list[int] = []
        self._answers = torch.empty(0)  # [rows, vocab], int32
        self._prompts = torch.empty(0)  # [rows, vocab], bool

    def of(
        self, sequences: Rows[Sequence], like: torch.Tensor, newest: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how often each token stands in each answer, and whether it stands in the prompt where that counts.

        Both have the shape of `like`, [rows, vocab]. `newest`, shape [rows], are the tokens of sequences that fly.
        """
        for sequence in sequences:
            if not self._is_open(sequence):
                self._open(sequence, like)
        rows = [self._rows[sequence] for sequence in sequences]
        self._count(sequences, rows)
        if newest is not None:
            self._count_flying(sequences, rows, newest)
        picked = upload(rows, torch.long, like.device)
        return self._answers.index_select(0, picked), self._prompts.index_select(0, picked)

    def _is_open(self, sequence: Sequence) -> bool:
        """Whether it is counted, and of what was counted nothing was lost with a step that failed."""
        row = self._rows.get(sequence)
        return row is not None and self._num_counted[row] <= sequence.num_chosen

    def _open(self, sequence: Sequence, like: torch.Tensor) -> None:
        vocab = like.shape[-1]
        self._rows.pop(sequence, None)
        # Those that ended stay known for as long as their job has other choices.
        taken = {row for known, row in self._rows.items() if not known.is_finished}
        row = min({*range(len(self._num_counted) + 1)} - taken)
        if row == len(self._num_counted):
            self._num_counted.append(0)
            self._answers = _with_row(self._answers, like.new_zeros((1, vocab), dtype=torch.int32))
            self._prompts = _with_row(self._prompts, like.new_zeros((1, vocab), dtype=torch.bool))
        self._rows[sequence] = row
        self._num_counted[row] = 0
        self._answers[row] = 0
        self._prompts[row] = False
        if sequence.prompt.penalizes_prompt:
            # A placeholder of media may lie outside of what the model can say.
            token_ids = [token_id for token_id in {*sequence.prompt.token_ids} if 0 <= token_id < vocab]
            self._prompts[row].index_fill_(0, upload(token_ids, torch.long, like.device), True)

    def _count(self, sequences: Rows[Sequence], rows: list[int]) -> None:
        """Add the tokens that came since the last call."""
        places: list[tuple[int, int]] = []
        for sequence, row in zip(sequences, rows, strict=True):
            places += ((row, token_id) for token_id in sequence.token_ids[self._num_counted[row] :])
            self._num_counted[row] = len(sequence.token_ids)
        if places:
            self._add(*upload([*zip(*places, strict=True)], torch.long, self._answers.device))

    def _count_flying(self, sequences: Rows[Sequence], rows: list[int], newest: torch.Tensor) -> None:
        """Add the tokens that only the device has yet."""
        flying = [index for index, sequence in enumerate(sequences) if sequence.num_flying]
        if flying:
            of_flying = [flying, [rows[index] for index in flying]]
            picked, places = upload(of_flying, torch.long, newest.device).unbind()
            self._add(places, newest.index_select(0, picked))
        for index in flying:
            self._num_counted[rows[index]] += 1

    def _add(self, rows: torch.Tensor, token_ids: torch.Tensor) -> None:
        self._answers.index_put_((rows, token_ids), self._answers.new_ones(()), accumulate=True)


def _with_row(pool: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return torch.cat([pool, row]) if len(pool) else row
