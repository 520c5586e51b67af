"""One running generation: its tokens so far, its text, and why it ended."""

from collections import deque
from enum import StrEnum

from shared.events import FinishReason
from shared.job import SamplingParams
from worker.engine.answer import Answer
from worker.engine.constraint import Constraint
from worker.engine.prompt import Prompt
from worker.engine.token import Token

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
    not generated again, and their text isn't shown again. `held` are the last of them, where their
    log-probabilities are still to be told. `adapter` is a slot of the runner. Of those that wait the one with the
    lowest `priority` goes first. `num_cached_tokens` of the prompt didn't have to be read.
    """

    def __init__(
        self,
        sequence_id: str,
        prompt: Prompt,
        sampling: SamplingParams,
        max_tokens: int,
        token_ids: tuple[int, ...] = (),
        adapter: int = BASE,
        priority: int = 0,
        *,
        held: tuple[Token, ...] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self.id = sequence_id
        self.prompt = prompt
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.adapter = adapter
        self.constraint = constraint
        self.priority = priority
        self.num_cached_tokens = 0
        self.num_chunks = 0
        """Pieces that its prompt was read in so far."""
        self.token_ids: list[int] = []
        self.num_flying = 0
        """Steps under way that choose a token for it."""
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.is_lost = False
        """Whether it was given up because its constraint can't be followed."""
        self.stop_token_ids = frozenset() if sampling.ignore_eos else prompt.stop_token_ids
        self.is_penalized = _is_penalized(sampling)
        self.takes_likeliest = constraint is None and not (self.is_penalized or _has_draw_or_bias(sampling))
        """Whether nothing is asked for but the likeliest token."""
        self._answer = Answer(prompt, sampling, is_constrained=constraint is not None)
        self._scored: deque[Token] = deque()
        self._num_told = 0
        for token in (*map(Token, token_ids[: len(token_ids) - len(held)]), *held):
            self.push(token)
        self.take_scored()

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt.token_ids) + len(self.token_ids)

    @property
    def last_token_id(self) -> int:
        """The newest token, which the next decode step feeds to the model."""
        return (self.token_ids or self.prompt.token_ids)[-1]

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be generated."""
        return self.status is SequenceStatus.FINISHED

    @property
    def num_chosen(self) -> int:
        """Tokens of the answer, with those that are still under way."""
        return len(self.token_ids) + self.num_flying

    @property
    def may_end(self) -> bool:
        """Whether the next token to be chosen may end the answer."""
        return self.num_chosen >= self.sampling.min_tokens

    def push(self, token: Token) -> str:
        """Take the next token; return the text that became safe to show, and finish if it is the last."""
        may_stop = len(self.token_ids) >= self.sampling.min_tokens
        self.token_ids.append(token.id)
        if self.constraint is not None:
            self.constraint.accept(token.id)
            if self.constraint.is_broken:
                return self._give_up()
        if token.id in self.stop_token_ids:
            return self.finish(FinishReason.STOP)
        if self.sampling.num_logprobs is not None:
            self._scored.append(token)
        text = self._answer.push(token.id, may_stop=may_stop)
        if self._answer.is_stopped or (self.constraint is not None and self.constraint.is_complete):
            return text + self.finish(FinishReason.STOP)
        if len(self.token_ids) >= self.max_tokens:
            return text + self.finish(FinishReason.LENGTH)
        return text

    def finish(self, reason: FinishReason) -> str:
        """End the sequence; return the text that was held back."""
        self.status = SequenceStatus.FINISHED
        self.finish_reason = reason
        return self._answer.finish()

    def _give_up(self) -> str:
        self.status = SequenceStatus.FINISHED
        self.is_lost = True
        return ""

    def take_scored(self) -> tuple[Token, ...]:
        """Return the tokens with log-probabilities whose text was shown since the last call."""
        if not self._scored:
            return ()
        num_shown, self._num_told = self._answer.num_shown - self._num_told, self._answer.num_shown
        return tuple(self._scored.popleft() for _ in range(num_shown))

    @property
    def newly_held(self) -> tuple[Token, ...]:
        """The newest token, if it has a log-probability and its text isn't shown yet, but may be."""
        return (self._scored[-1],) if self._scored and not self.is_finished else ()


def _is_penalized(sampling: SamplingParams) -> bool:
    return sampling.repetition_penalty != 1 or bool(sampling.presence_penalty or sampling.frequency_penalty)


def _has_draw_or_bias(sampling: SamplingParams) -> bool:
    return bool(sampling.temperature > 0 or sampling.logit_bias or sampling.min_tokens)
