"""The mixed load: what is asked, what an undisturbed server answers, and what a disturbed one got wrong."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from openai import AsyncOpenAI

from baton import InferClient, InferRequest, RequestConfig
from tests.faults.puppet import written
from worker.engine.draw import choice_seed
from worker.engine.token import Token

NUM_TOKENS = 70
ANSWER_TIMEOUT_S = 90.0
ALPHABETS = ("the quick fox", "žluťoučký kůň", "日本語の文字", "a🙂é日b", "0123456789")


@dataclass(frozen=True, slots=True)
class Question:
    """One request; every answer to it is the same, whatever happens meanwhile."""

    alphabet: str
    is_streamed: bool
    seed: int | None = None
    stop: str | None = None
    max_tokens: int = NUM_TOKENS
    n: int = 1
    has_logprobs: bool = False

    @property
    def expected(self) -> "Answer":
        seeds = [0 if self.seed is None else choice_seed(self.seed, index) for index in range(self.n)]
        told = [self._told(written(self.alphabet, seed, self.max_tokens)) for seed in seeds]
        return Answer(tuple(choice for choice, _ in told), sum(num_tokens for _, num_tokens in told))

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.alphabet}]

    def options(self) -> dict:
        """What is asked for, as the official client and Baton's both spell it."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": 0.0 if self.seed is None else 1.0,
            "seed": self.seed,
            "stop": [self.stop] if self.stop else [],
            "n": self.n,
            "logprobs": self.has_logprobs,
            "top_logprobs": 1 if self.has_logprobs else None,
        }

    def _told(self, tokens: list[Token]) -> tuple["Choice", int]:
        """One of the answers, and how many tokens it cost."""
        text, num_shown, num_tokens, reason = text_of(tokens), len(tokens), len(tokens), "length"
        if self.stop is not None and self.stop in text:
            text, reason = text[: text.index(self.stop)], "stop"
            num_shown = len(text.encode())
            num_tokens = num_shown + len(self.stop.encode())
        shown = tokens[:num_shown] if self.has_logprobs else []
        return Choice(text, reason, tuple((bytes([token.id]), token.logprob) for token in shown)), num_tokens


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request."""

    text: str
    finish_reason: str | None
    scored: tuple[tuple[bytes, float], ...] = ()
    """The bytes of each token and its log-probability, if asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client has in the end."""

    choices: tuple[Choice, ...]
    num_tokens: int

    @property
    def text(self) -> str:
        return "".join(choice.text for choice in self.choices)


@dataclass(slots=True)
class Tally:
    """How the answers of many rounds compare with those of an undisturbed server."""

    num_asked: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.repeated or self.wrong)

    def compare(self, question: Question, answer: Answer | Exception) -> None:
        self.num_asked += 1
        expected = question.expected
        if answer == expected:
            return
        told = f"{question}: {answer!r} instead of {expected}"
        if isinstance(answer, Exception) or len(answer.text) < len(expected.text):
            self.lost.append(told)
        elif len(answer.text) > len(expected.text):
            self.repeated.append(told)
        else:
            self.wrong.append(told)


def mixed_load() -> list[Question]:
    """Greedy and seeded, streamed and plain, one answer and two, with and without log-probabilities.

    They end by length, or by a stop string of several tokens.
    """
    load = []
    for number in range(15):
        alphabet, seed = ALPHABETS[number % 5], None if number % 2 else 1000 + number
        text = text_of(written(alphabet, seed or 0, NUM_TOKENS))
        middle = len(text) * 2 // 3
        stop = text[middle : middle + 3] if number % 3 == 2 else None
        n, has_logprobs = 2 if number in {2, 4, 6} else 1, number in {0, 5, 6, 7, 8}
        load.append(Question(alphabet, number % 3 > 0, seed, stop, n=n, has_logprobs=has_logprobs))
    return load


def text_of(tokens: list[Token]) -> str:
    """What the puppet's tokens spell."""
    return bytes(token.id for token in tokens).decode(errors="replace")


class Hearing:
    """What a client has of an answer so far, whichever client it is."""

    def __init__(self) -> None:
        self._choices: dict[int, tuple[list[str], list[str], list[tuple[bytes, float]]]] = {}
        self._num_tokens = 0

    def take(self, chunk: Any) -> None:
        for choice in chunk.choices:
            texts, reasons, scored = self._choices.setdefault(choice.index, ([], [], []))
            said = choice.delta if hasattr(choice, "delta") else choice.message
            texts.append(said.content or "")
            reasons += [choice.finish_reason] if choice.finish_reason else []
            scored += [_entry(entry) for entry in _plain(choice.logprobs)["content"]] if choice.logprobs else []
        if chunk.usage:
            self._num_tokens = chunk.usage.completion_tokens

    def answer(self) -> Answer:
        choices = [Choice("".join(t), "+".join(r), tuple(s)) for _, (t, r, s) in sorted(self._choices.items())]
        return Answer(tuple(choices), self._num_tokens)


def _plain(logprobs: Any) -> dict:
    return logprobs if isinstance(logprobs, dict) else logprobs.model_dump()


def _entry(entry: dict) -> tuple[bytes, float]:
    (top,) = entry["top_logprobs"]
    assert (top["bytes"], top["logprob"]) == (entry["bytes"], entry["logprob"])
    return bytes(entry["bytes"]), entry["logprob"]


class Listener:
    """Asks one question through the official client, or Baton's own, and notes when the answer was heard of."""

    def __init__(self, client: AsyncOpenAI | InferClient, question: Question, has_begun: asyncio.Event) -> None:
        self._client = client
        self._question = question
        self._has_begun = has_begun
        self.heard_s: list[float] = []

    async def ask(self) -> Answer | Exception:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):  # keep-alives would keep a client waiting for ever
                if isinstance(self._client, InferClient):
                    return await self._infer(self._client)
                return await (self._follow() if self._question.is_streamed else self._wait())
        except Exception as error:  # noqa: BLE001  whatever a client meets is an answer lost
            return error

    def pause_s(self, since_s: float) -> float | None:
        """Longest time without a sign of the answer from this moment on, if it was under way then."""
        if not self.heard_s or self.heard_s[0] > since_s or self.heard_s[-1] < since_s:
            return None
        return max(later - before for before, later in pairwise(self.heard_s) if later >= since_s)

    async def _wait(self) -> Answer:
        hearing = Hearing()
        hearing.take(await self._client.chat.completions.create(**self._body()))
        return hearing.answer()

    async def _follow(self) -> Answer:
        options = {"include_usage": True}
        stream = await self._client.chat.completions.create(**self._body(), stream=True, stream_options=options)
        async with stream:
            return await self._hear(stream)

    async def _infer(self, client: InferClient) -> Answer:
        config = RequestConfig(**self._question.options(), stream=True)
        request = InferRequest(self._question.messages)
        return await self._hear(await client.infer_async(request, config, model="fake"))

    def _body(self) -> dict:
        return {"model": "fake", "messages": self._question.messages, **self._question.options()}

    async def _hear(self, stream: AsyncIterator[Any]) -> Answer:
        hearing = Hearing()
        async for chunk in stream:
            self.heard_s.append(time.monotonic())
            hearing.take(chunk)
            self._has_begun.set()
        return hearing.answer()
