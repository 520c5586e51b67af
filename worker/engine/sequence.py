"""One running generation: its tokens so far, its text, and why it ended."""

from enum import StrEnum

from shared.events import FinishReason
from shared.job import SamplingParams
from worker.engine.answer import Answer
from worker.engine.prompt import Prompt

BASE = 0
"""The slot of the model without an adapter."""


class SequenceStatus(StrEnum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """Created by whoever has a prompt, ended by the engine; lives in one engine only.

    `token_ids` given at the start are an earlier attempt's answer so far: they are continued,
    not generated again, and their text isn't shown again. `adapter` is a slot of the runner.
    """

    def __init__(
        self,
        sequence_id: str,
        prompt: Prompt,
        sampling: SamplingParams,
        max_tokens: int,
        token_ids: tuple[int, ...] = (),
        adapter: int = BASE,
    ) -> None:
        self.id = sequence_id
        self.prompt = prompt
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.adapter = adapter
        self.token_ids: list[int] = []
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self._answer = Answer(prompt, sampling.stop)
        for token_id in token_ids:
            self.push(token_id)

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt.token_ids) + len(self.token_ids)

    @property
    def last_token_id(self) -> int:
        """The newest token, which the next decode step feeds to the model."""
        return self.token_ids[-1]

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be generated."""
        return self.status is SequenceStatus.FINISHED

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that became safe to show, and finish if it is the last."""
        self.token_ids.append(token_id)
        if token_id in self.prompt.stop_token_ids:
            return self.finish(FinishReason.STOP)
        text = self._answer.push(token_id)
        if self._answer.is_stopped:
            return text + self.finish(FinishReason.STOP)
        if len(self.token_ids) >= self.max_tokens:
            return text + self.finish(FinishReason.LENGTH)
        return text

    def finish(self, reason: FinishReason) -> str:
        """End the sequence; return the text that was held back."""
        self.status = SequenceStatus.FINISHED
        self.finish_reason = reason
        return self._answer.finish()
