"""Who runs: a queue of waiting sequences and a dense list of running ones."""

from collections import deque

from worker.engine.sequence import Sequence, SequenceStatus


class Scheduler:
    """First come, first served, into a fixed number of rows.

    The running sequences always fill rows 0 to n-1, so that the cache can be used as a view.
    """

    def __init__(self, max_num_seqs: int) -> None:
        self._max_num_seqs = max_num_seqs
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        self.waiting.append(sequence)

    def next_admission(self) -> Sequence | None:
        """Take the next sequence to prefill, if a row is free for it.

        One a step: running sequences never wait for more than one prefill.
        """
        if not self.waiting or len(self.running) >= self._max_num_seqs:
            return None
        return self.waiting.popleft()

    def start(self, sequence: Sequence) -> None:
        """Give a prefilled sequence the next row."""
        sequence.status = SequenceStatus.RUNNING
        self.running.append(sequence)

    def find(self, sequence_id: str) -> Sequence | None:
        """The waiting or running sequence of that id."""
        return next((s for s in (*self.running, *self.waiting) if s.id == sequence_id), None)

    def remove(self, sequence: Sequence) -> tuple[int, int] | None:
        """Take a sequence out; return the row (source, target) to move so that no hole stays, if any."""
        if sequence not in self.running:
            self.waiting.remove(sequence)
            return None
        row, last = self.running.index(sequence), self.running.pop()
        if row == len(self.running):
            return None
        self.running[row] = last
        return len(self.running), row
