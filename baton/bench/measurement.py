"""What was seen of one request: moments of one monotonic clock, counts, and how it ended."""

from array import array
from dataclasses import dataclass, field


@dataclass(slots=True)
class Measurement:
    """One request. Times are seconds of the event loop's clock; a gap is the time between two chunks with tokens."""

    model: str
    due_s: float
    """When it should have been sent."""
    sent_s: float
    """When it was sent, its connection not yet made."""
    first_s: float | None = None
    """When the first token was there; None for an answer in one piece."""
    ended_s: float | None = None
    num_chunks: int = 0
    """Chunks with tokens."""
    gaps_s: "array[float]" = field(default_factory=lambda: array("d"))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    usage_tokens: int | None = None
    """The answer's tokens as the server counts them, if it does."""
    error: str | None = None
    """The kind of error, None for a whole answer."""

    @property
    def is_answered(self) -> bool:
        """Whether the whole answer arrived."""
        return self.error is None and self.ended_s is not None

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, or else its chunks."""
        return self.num_chunks if self.usage_tokens is None else self.usage_tokens

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def e2e_s(self) -> float | None:
        """Time to the end of the answer."""
        return None if self.ended_s is None else self.ended_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time of each token after the first."""
        if self.first_s is None or self.ended_s is None or self.num_tokens < 2:
            return None
        return (self.ended_s - self.first_s) / (self.num_tokens - 1)
