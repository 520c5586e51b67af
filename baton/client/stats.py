"""What a batch of answers cost, as ms-swift counts it."""

import time
from typing import Protocol

from baton.client.answer import ChatCompletionResponse, ChatCompletionStreamResponse


class Metric(Protocol):
    """Whatever looks at each answer, or at each stream's last chunk."""

    def update(self, output: ChatCompletionResponse | ChatCompletionStreamResponse) -> None:
        """Take one answer in."""


class InferStats:
    """Tokens, answers and their rates since it was made or reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything and start the clock."""
        self._began_s = time.perf_counter()
        self._num_prompt_tokens = self._num_generated_tokens = self._num_samples = 0

    def update(self, output: ChatCompletionResponse | ChatCompletionStreamResponse) -> None:
        """Take one answer in."""
        self._num_samples += 1
        if output.usage is not None:
            self._num_prompt_tokens += output.usage.prompt_tokens
            self._num_generated_tokens += output.usage.completion_tokens

    def compute(self) -> dict[str, float]:
        """Return the counts, the seconds so far and the rates."""
        runtime_s = time.perf_counter() - self._began_s
        return {
            "num_prompt_tokens": self._num_prompt_tokens,
            "num_generated_tokens": self._num_generated_tokens,
            "num_samples": self._num_samples,
            "runtime": runtime_s,
            "samples/s": self._num_samples / runtime_s,
            "tokens/s": self._num_generated_tokens / runtime_s,
        }
