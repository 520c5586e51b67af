"""The engine's steps that one attempt was part of, and which of them its trace shows."""

from collections.abc import Iterator

from shared.tracing import Attributes
from worker.engine.thread import Step


class Steps:
    """Shows the first, second, fourth, eighth … step of an answer, so that a trace stays small however long it is."""

    def __init__(self) -> None:
        self._num_steps = self._num_sequences = self._max_num_sequences = 0
        self._longest_s = 0.0
        self._last: Step | None = None
        self._shown: list[tuple[int, Step]] = []

    def note(self, step: Step) -> None:
        """Take a step that said something; several choices of one job share theirs."""
        if step is self._last:
            return
        self._last = step
        self._num_steps += 1
        self._num_sequences += step.num_sequences
        self._max_num_sequences = max(self._max_num_sequences, step.num_sequences)
        self._longest_s = max(self._longest_s, step.ended_s - step.began_s)
        if self._num_steps & (self._num_steps - 1) == 0:
            self._shown.append((self._num_steps, step))

    @property
    def attributes(self) -> Attributes:
        """What all of them were like."""
        return {
            "baton.engine.num_steps": self._num_steps,
            "baton.engine.mean_batch_size": self._num_sequences / max(self._num_steps, 1),
            "baton.engine.max_batch_size": self._max_num_sequences,
            "baton.engine.longest_step_s": self._longest_s,
        }

    def __iter__(self) -> Iterator[tuple[float, float, Attributes]]:
        """Yield beginning, end and attributes of those that are shown."""
        for number, step in self._shown:
            attributes: Attributes = {
                "baton.engine.step": number,
                "baton.engine.batch_size": step.num_sequences,
                "baton.engine.num_read_tokens": step.num_read_tokens,
            }
            yield step.began_s, step.ended_s, attributes
