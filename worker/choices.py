"""The answers of one job: as many sequences in the engine, each a choice of its own."""

from itertools import count
from typing import NamedTuple, Self

import msgspec

from shared.events import Usage
from shared.job import ChatJob, JobId, SamplingParams
from shared.progress import Candidate, Progress, TokenLogprob
from worker.engine.draw import choice_seed
from worker.engine.grammar import Grammar
from worker.engine.prompt import Prompt, Tokenizer
from worker.engine.sequence import Sequence
from worker.engine.token import Scored, Token

_SEPARATOR = "#"
_runs = count()


class ChoiceId(NamedTuple):
    """Names one choice for the engine: a worker that lost a job may claim it again before its sequences are gone."""

    job_id: JobId
    run: int
    choice: int

    @classmethod
    def parse(cls, sequence_id: str) -> Self:
        """Return what a sequence's id says."""
        job_id, run, choice = sequence_id.rsplit(_SEPARATOR, 2)
        return cls(JobId(job_id), int(run), int(choice))

    def __str__(self) -> str:
        return _SEPARATOR.join(map(str, self))


class Choices:
    """Created once the prompt is there; those whose end was told by an earlier attempt have no sequence."""

    def __init__(
        self,
        job: ChatJob,
        prompt: Prompt,
        max_tokens: int,
        adapter: int,
        progress: Progress,
        grammar: Grammar | None = None,
    ) -> None:
        self.run = next(_runs)
        """Tells its sequences from those of the same job that this process ran before."""
        self._prompt = prompt
        self._num_before = 0
        self._sequences: dict[int, Sequence] = {}
        self._running: set[int] = set()
        for index in range(job.n):
            known = progress.of_choice(index)
            if known.is_finished:
                self._num_before += len(known.token_ids)
                continue
            self._running.add(index)
            self._sequences[index] = Sequence(
                str(ChoiceId(job.id, self.run, index)),
                prompt,
                _with_own_seed(job.sampling, index),
                max_tokens,
                known.token_ids,
                adapter,
                job.priority,
                held=tuple(map(_scored_again, known.held)),
                constraint=None if grammar is None else grammar.constraint(),
            )

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, which all choices share."""
        return len(self._prompt.token_ids)

    @property
    def cached_tokens(self) -> int:
        """Of these, what no choice had to read: the first one reads for all."""
        return min((sequence.num_cached_tokens for sequence in self._sequences.values()), default=0)

    @property
    def usage(self) -> Usage:
        """The counts of the whole job."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            audio_tokens=self._prompt.num_tokens_of("audio"),
            image_tokens=self._prompt.num_tokens_of("image", "video"),
        )

    @property
    def num_chunks(self) -> int:
        """Pieces that the prompt was read in, for all of them together."""
        return sum(sequence.num_chunks for sequence in self._sequences.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all choices together."""
        return self._num_before + sum(len(sequence.token_ids) for sequence in self._sequences.values())

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Those that haven't ended."""
        return tuple(self._sequences[index] for index in sorted(self._running))

    def end(self, index: int) -> None:
        """Note that a choice has ended."""
        self._running.discard(index)

    def logprobs(self, tokens: tuple[Token, ...]) -> tuple[TokenLogprob, ...]:
        """Spell out what was asked about these tokens."""
        return tuple(_spelled(token, self._prompt.tokenizer) for token in tokens if token.logprob is not None)


def _with_own_seed(sampling: SamplingParams, index: int) -> SamplingParams:
    if index == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=choice_seed(sampling.seed, index))


def _spelled(token: Token, tokenizer: Tokenizer) -> TokenLogprob:
    assert token.logprob is not None
    chosen, *top = (
        Candidate(scored.id, scored.logprob, tokenizer.token_bytes(scored.id))
        for scored in (Scored(token.id, token.logprob), *token.top)
    )
    return TokenLogprob(chosen, tuple(top))


def _scored_again(logprob: TokenLogprob) -> Token:
    top = tuple(Scored(candidate.token_id, candidate.logprob) for candidate in logprob.top)
    return Token(logprob.chosen.token_id, logprob.chosen.logprob, top)
