"""What was said in a chat so far, and the media that wait for the next question."""

from typing import Any

from baton.client.medium import as_uri
from baton.client.request import Message


class Conversation:
    """The turns of one chat; a question counts only once it has been answered."""

    def __init__(self, system: str | None) -> None:
        self.system = system
        self._turns: list[Message] = []
        self._attached: list[dict[str, Any]] = []

    def attach(self, kind: str, address: str) -> None:
        """Put an image, audio or video in front of the next question; a local file is read now."""
        self._attached.append({"type": f"{kind}_url", f"{kind}_url": {"url": as_uri(address)}})

    def ask(self, text: str) -> list[Message]:
        """Return the messages that ask this; the attached media are used up."""
        parts = [*self._attached, {"type": "text", "text": text}] if self._attached else text
        self._attached = []
        self._turns.append({"role": "user", "content": parts})
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self._turns]

    def answer(self, text: str) -> None:
        """Keep the answer to the last question; without one, the question is forgotten too."""
        if text:
            self._turns.append({"role": "assistant", "content": text})
        else:
            self._turns.pop()

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        self._turns, self._attached = [], []
