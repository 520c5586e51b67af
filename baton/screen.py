"""What a person sees meanwhile: lines that stay, and under them one that shows how far things are."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Screen:
    """Writes to stderr; without a terminal, each change of the progress is a line of its own."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("")
        self._shown = ""

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def progress(self, words: str) -> None:
        """Show how far things are."""
        if words == self._shown:
            return
        self._shown = words
        if self._console.is_terminal:
            self._progress.update(self._task, description=words)
            self._progress.start()
        else:
            self.say(words)

    def settle(self) -> None:
        """Take the progress away."""
        if self._console.is_terminal:
            self._progress.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
