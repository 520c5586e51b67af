"""How far a batch is, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(num_requests: int, *, is_shown: bool) -> Iterator[Callable[[], None]]:
    """Show a bar meanwhile, if it is wanted; what is yielded counts one answer."""
    if not is_shown:
        yield lambda: None
        return
    from rich.console import Console  # costs more to import than the whole client, and few scripts show it
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("answers", total=num_requests)
        yield lambda: progress.advance(task)
