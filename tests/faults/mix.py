"""The mixed load: what is asked, what an undisturbed server answers, and what a disturbed one got wrong."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise

from openai import AsyncOpenAI

from baton import InferClient, InferRequest, RequestConfig
from tests.faults.puppet import written

NUM_TOKENS = 70
ALPHABETS = ("the quick fox", "žluťoučký kůň", "日本語の文字", "a🙂é日b", "0123456789")


@dataclass(frozen=True, slots=True)
class Question:
    """One request; every answer to it is the same, whatever happens meanwhile."""

    alphabet: str
    is_streamed: bool
    seed: int | None = None
    stop: str | None = None
    max_tokens: int = NUM_TOKENS

    @property
    def expected(self) -> "Answer":
        text = written(self.alphabet, self.seed or 0, self.max_tokens)
        if self.stop is None or self.stop not in text:
            return Answer(text, "length", self.max_tokens)
        before = text[: text.index(self.stop)]
        return Answer(before, "stop", len((before + self.stop).encode()))

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.alphabet}]

    def body(self) -> dict:
        return {
            "model": "fake",
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0 if self.seed is None else 1,
            "seed": self.seed,
            "stop": self.stop,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client has in the end."""

    text: str
    finish_reason: str | None
    num_tokens: int


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
    """Greedy and seeded, streamed and plain, ended by length and by a stop string of several tokens."""
    load = []
    for number in range(15):
        alphabet, seed = ALPHABETS[number % 5], None if number % 2 else 1000 + number
        text = written(alphabet, seed or 0, NUM_TOKENS)
        middle = len(text) * 2 // 3
        stop = text[middle : middle + 3] if number % 3 == 2 else None
        load.append(Question(alphabet, is_streamed=number % 3 > 0, seed=seed, stop=stop))
    return load


class Listener:
    """Asks one question through the official client, or Baton's own, and notes when the answer was heard of."""

    def __init__(self, client: AsyncOpenAI | InferClient, question: Question, has_begun: asyncio.Event) -> None:
        self._client = client
        self._question = question
        self._has_begun = has_begun
        self.heard_s: list[float] = []

    async def ask(self) -> Answer | Exception:
        try:
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
        answer = await self._client.chat.completions.create(**self._question.body())
        choice = answer.choices[0]
        return Answer(choice.message.content, choice.finish_reason, answer.usage.completion_tokens)

    async def _follow(self) -> Answer:
        text, finish_reason, num_tokens = "", None, 0
        options = {"include_usage": True}
        async with await self._client.chat.completions.create(
            **self._question.body(), stream=True, stream_options=options
        ) as stream:
            async for chunk in stream:
                self.heard_s.append(time.monotonic())
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    finish_reason = choice.finish_reason or finish_reason
                    self._has_begun.set()
                num_tokens = chunk.usage.completion_tokens if chunk.usage else num_tokens
        return Answer(text, finish_reason, num_tokens)

    async def _infer(self, client: InferClient) -> Answer:
        asked = self._question
        config = RequestConfig(
            max_tokens=asked.max_tokens,
            temperature=0.0 if asked.seed is None else 1.0,
            seed=asked.seed,
            stop=[asked.stop] if asked.stop else [],
            stream=True,
        )
        chunks = []
        async for chunk in await client.infer_async(InferRequest(asked.messages), config, model="fake"):
            chunks.append(chunk)
            self.heard_s.append(time.monotonic())
            self._has_begun.set()
        text = "".join(chunk.choices[0].delta.content for chunk in chunks)
        return Answer(text, chunks[-1].choices[0].finish_reason, chunks[-1].usage.completion_tokens)
