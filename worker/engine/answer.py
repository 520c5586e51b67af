"""The text of one answer as it grows: what may be shown, and when a stop string ends it."""

from worker.engine.detokenizer import IncrementalDetokenizer
from worker.engine.prompt import Prompt


class Answer:
    """Turns one sequence's tokens into deltas that never have to be taken back.

    Held back are: half a character, a piece of a stop string or of what will be replaced, and (where the
    model's own code strips its answers) white space that may turn out to be the last.
    """

    def __init__(self, prompt: Prompt, stop: tuple[str, ...]) -> None:
        self._detokenizer = IncrementalDetokenizer(prompt.tokenizer)
        self._stop = (*prompt.stop, *stop)
        self._rewrites = prompt.rewrites
        self._awaited = (*self._stop, *(source for source, _ in prompt.rewrites))
        self._strips = prompt.strips_answer
        self._held = ""
        self._is_empty = True
        self.is_stopped = False
        """Whether a stop string was met; nothing after it is ever shown."""

    def push(self, token_id: int) -> str:
        """Take one token; return the text that became safe to show, which may be empty."""
        return self._show(self._detokenizer.push(token_id), is_last=False)

    def finish(self) -> str:
        """Return what was held back and is part of the answer after all."""
        return "" if self.is_stopped else self._show(self._detokenizer.flush(), is_last=True)

    def _show(self, text: str, *, is_last: bool) -> str:
        self._held += text
        for source, target in self._rewrites:
            self._held = self._held.replace(source, target)
        self._cut_at_stop()
        end = len(self._held) if is_last or self.is_stopped else len(self._held) - self._awaited_piece()
        shown, self._held = self._held[:end], self._held[end:]
        return self._strip(shown, is_last=is_last or self.is_stopped) if self._strips else shown

    def _cut_at_stop(self) -> None:
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self._held = self._held[: min(found)]
            self.is_stopped = True

    def _awaited_piece(self) -> int:
        """Length of the longest end of the held text that begins a stop string or what will be replaced."""
        return max(
            (
                size
                for awaited in self._awaited
                for size in range(min(len(awaited) - 1, len(self._held)), 0, -1)
                if self._held.endswith(awaited[:size])
            ),
            default=0,
        )

    def _strip(self, shown: str, *, is_last: bool) -> str:
        if self._is_empty:
            shown = shown.lstrip()
        body = shown.rstrip()
        if not is_last:
            self._held = shown[len(body) :] + self._held
        self._is_empty = self._is_empty and not body
        return body
