"""The text of one answer as it grows: what may be shown, and when a stop string ends it."""

from collections import deque

from shared.job import SamplingParams
from worker.engine.detokenizer import IncrementalDetokenizer, SpelledOut
from worker.engine.prompt import Prompt


class Answer:
    """Turns one sequence's tokens into deltas that never have to be taken back.

    Held back are: half a character, a piece of a stop string or of what will be replaced, and (where the
    model's own code strips its answers) white space that may turn out to be the last. A constrained answer is exactly
    what its tokens spell, up to a stop string of the request's own.
    """

    def __init__(self, prompt: Prompt, sampling: SamplingParams, *, is_constrained: bool = False) -> None:
        tokenizer = SpelledOut(prompt.tokenizer) if is_constrained else prompt.tokenizer
        self._detokenizer = IncrementalDetokenizer(tokenizer)
        self._stop = sampling.stop if sampling.ignore_eos or is_constrained else (*prompt.stop, *sampling.stop)
        self._rewrites = () if is_constrained else prompt.rewrites
        self._replaced = tuple(source for source, _ in self._rewrites)
        self._awaited = (*self._stop, *self._replaced)
        self._strips = prompt.strips_answer and not is_constrained
        self._held = ""
        self._is_empty = True
        self.is_stopped = False
        """Whether a stop string was met; nothing after it is ever shown."""
        self.num_shown = 0
        """Tokens whose text is shown, or has begun to be; what a stop string cuts off never is."""
        self._length = 0  # of what is shown or stripped
        self._starts: deque[int] = deque()  # where the text of each other token begins

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """Take one token; return the text that became safe to show, which may be empty.

        Unless it `may_stop`, all text up to this token is shown, stop strings included.
        """
        self._starts.append(self._length + len(self._held))
        return self._show(self._detokenizer.push(token_id), is_last=False, may_stop=may_stop)

    def finish(self) -> str:
        """Return what was held back and is part of the answer after all."""
        if self.is_stopped:
            return ""
        self.num_shown += len(self._starts)
        self._starts.clear()
        return self._show(self._detokenizer.flush(), is_last=True, may_stop=True)

    def _show(self, text: str, *, is_last: bool, may_stop: bool) -> str:
        self._held += text
        for source, target in self._rewrites:
            self._held = self._held.replace(source, target)
        if may_stop:
            self._cut_at_stop()
        length = len(self._held)
        end = length if is_last or self.is_stopped else length - self._awaited_piece(may_stop=may_stop)
        shown, self._held = self._held[:end], self._held[end:]
        if self._strips:
            shown = self._strip(shown, is_last=is_last or self.is_stopped)
        self._count_shown(length - len(self._held))
        return shown

    def _count_shown(self, length: int) -> None:
        self._length += length
        while self._starts and self._starts[0] < self._length:
            self._starts.popleft()
            self.num_shown += 1

    def _cut_at_stop(self) -> None:
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self._held = self._held[: min(found)]
            self.is_stopped = True

    def _awaited_piece(self, *, may_stop: bool) -> int:
        """Length of the longest end of the held text that begins a stop string or what will be replaced."""
        awaited = self._awaited if may_stop else self._replaced
        return max((_overlap(self._held, each) for each in awaited), default=0)

    def _strip(self, shown: str, *, is_last: bool) -> str:
        if self._is_empty:
            shown = shown.lstrip()
        body = shown.rstrip()
        if not is_last:
            self._held = shown[len(body) :] + self._held
        self._is_empty = self._is_empty and not body
        return body


def _overlap(text: str, awaited: str) -> int:
    """Length of the longest end of a text that begins what is awaited, and isn't all of it."""
    start = max(0, len(text) - len(awaited) + 1)
    while (start := text.find(awaited[0], start)) >= 0:
        if awaited.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0
