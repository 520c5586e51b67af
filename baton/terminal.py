"""Where a chat is read and shown: a terminal with a person at it, or a pipe that gets the answers and no more."""

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console

CONTINUED = "\\"
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters with which an answer could command the terminal."""


class Terminal:
    """Speaks to stdout; what is wrong goes to stderr."""

    def __init__(self) -> None:
        self._is_screen = sys.stdout.isatty()
        self.is_interactive = sys.stdin.isatty() and self._is_screen
        self._notes = Console(highlight=False)
        self._errors = Console(stderr=True, highlight=False)
        if self.is_interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - gives input() its line editing, where the system has it

    def texts(self) -> Iterator[str]:
        """Yield what was typed, joined over lines that end in a backslash, until the input ends."""
        lines: list[str] = []
        for line in self._lines(lines):
            if line.endswith(CONTINUED):
                lines.append(line.removesuffix(CONTINUED))
            else:
                yield "\n".join([*lines, line]).strip()
                lines.clear()
        if lines:
            yield "\n".join(lines).strip()

    def write(self, text: str) -> None:
        """Show a piece of an answer at once."""
        sys.stdout.write(text.translate(_CONTROLS) if self._is_screen else text)
        sys.stdout.flush()

    def note(self, words: str) -> None:
        """Tell a person something; a pipe does not care."""
        if self.is_interactive:
            self._notes.print(words, style="dim", markup=False, emoji=False, soft_wrap=True)

    def error(self, words: str) -> None:
        """Say in one line what is wrong."""
        line = " ".join(words.translate(_CONTROLS).split())
        self._errors.print(line, style="red", markup=False, emoji=False, soft_wrap=True)

    def _lines(self, unfinished: list[str]) -> Iterator[str]:
        if not self.is_interactive:
            yield from (line.decode(errors="replace").rstrip("\r\n") for line in sys.stdin.buffer)
            return
        while True:
            try:
                typed = input("  " if unfinished else "> ")
            except KeyboardInterrupt:
                unfinished.clear()
                self.write("\n")
            except EOFError:
                self.write("\n")
                return
            else:
                yield typed.encode(errors="replace").decode()
