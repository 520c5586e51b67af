"""`baton bench`: load a server and print how fast it answered."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, track

from baton.bench.connection import Connections
from baton.bench.gauge import Gauge
from baton.bench.load import Load
from baton.bench.report import Report, report
from baton.bench.settings import BenchSettings
from baton.bench.table import show
from baton.bench.workload import Conversation, Workload
from baton.client.answer import ModelList
from baton.client.endpoint import Endpoint, endpoint_of
from baton.client.exchange import fetch

REFRESHES_PER_S = 4
"""Drawing the progress bar costs the event loop milliseconds that would be taken for the server's."""
STDOUT = "-"
INTERRUPTED = 130
"""The exit status that shells give a program ended by Ctrl-C."""


def main() -> None:
    """Run the load; the exit status is 1 if nothing was answered."""
    settings = BenchSettings.read()
    try:
        run = Run(settings)
        figures = uvloop.run(run.measure())
    except ModuleNotFoundError as error:
        sys.exit(f"baton bench: {error.name} is not installed: pip install 'baton[bench]'")
    except (OSError, ValueError) as error:
        sys.exit(f"baton bench: {error}")
    except KeyboardInterrupt:  # before there was anything to show
        sys.exit(INTERRUPTED)
    if str(settings.json_file) != STDOUT:
        show(figures, run.ttfts_s)
    if settings.json_file is not None:
        _write(figures, str(settings.json_file))
    sys.exit(0 if figures.num_answered else 1)


class Run:
    """One run against one server: it is asked for its models, then the requests are drawn, then the load begins."""

    def __init__(self, settings: BenchSettings) -> None:
        self.ttfts_s: list[float] = []
        self._settings = settings
        self._endpoint = _endpoint(settings)
        workload = Workload(settings, _models(settings, self._endpoint))
        self._warmups = list(workload.warmups())
        self._conversations = _drawn(workload, settings.num_conversations)

    async def measure(self) -> Report:
        """Warm up, load, and sum up; Ctrl-C ends the load early."""
        with Connections(self._endpoint) as connections, _bar(self._settings) as advance:
            await Load(self._settings, connections, lambda: None).warm_up(self._warmups)
            load = Load(self._settings, connections, advance)
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, load.stop)
            began = datetime.now().astimezone().isoformat(timespec="seconds")
            async with Gauge() as gauge:
                await load.run(self._conversations)
        if not load.measurements:
            raise ValueError("nothing was sent")
        self.ttfts_s = [m.ttft_s for m in load.measurements if m.is_answered and m.ttft_s is not None]
        return report(
            load.measurements,
            gauge,
            began=began,
            url=self._endpoint.url,
            load=_words(self._settings, self._conversations),
            seed=self._settings.seed,
            limits_ms=self._settings.goodput,
        )


def _endpoint(settings: BenchSettings) -> Endpoint:
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return endpoint_of(settings.host, settings.port, key, settings.base_url, settings.timeout_s)


def _models(settings: BenchSettings, endpoint: Endpoint) -> dict[str, float]:
    """Return the models to ask, with their weights."""
    if settings.model_mix:
        return {name: float(weight) for name, weight in settings.model_mix.items()}
    if settings.model is not None:
        return {settings.model: 1.0}
    names = [model.id for model in fetch(endpoint, "models", ModelList).data]
    if len(names) != 1:
        raise ValueError(f"name a model with --model; the server has {', '.join(names) or 'none that is ready'}")
    return {names[0]: 1.0}


def _drawn(workload: Workload, num_conversations: int) -> list[Conversation]:
    console = Console(stderr=True)
    drawing = track(
        workload.draw(), "drawing", num_conversations, console=console, transient=True, disable=not console.is_terminal
    )
    return list(drawing)


@contextmanager
def _bar(settings: BenchSettings) -> Iterator[Callable[[], None]]:
    """Show how many requests have ended, where there is a terminal; what is yielded counts one."""
    console = Console(stderr=True)
    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, refresh_per_second=REFRESHES_PER_S, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=settings.max_requests)
        yield lambda: progress.advance(task)


def _words(settings: BenchSettings, conversations: Sequence[Conversation]) -> str:
    """Say what the load was."""
    if settings.num_clients is not None:
        kind = f"closed loop, {settings.num_clients} at once"
    else:
        kind = f"open loop, {settings.request_rate:g} requests/s, {settings.arrival}"
    counts = {"image": settings.images, "recording": settings.audios, "clip": settings.videos}
    media = "".join(f", {number} {name}{'s' * (number > 1)}" for name, number in counts.items() if number)
    turns = f" of {settings.num_turns} turns" if settings.num_turns > 1 else ""
    number = "a prefix" if settings.num_prefixes == 1 else f"one of {settings.num_prefixes} prefixes"
    prefix = f" after {number} of {settings.prefix_words}" if settings.prefix_words else ""
    return (
        f"{kind}; {len(conversations)} different conversations{turns}; {settings.prompt_words} words{prefix}{media}, "
        f"at most {settings.answer_tokens} tokens back"
    )


def _write(figures: Report, path: str) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(figures), indent=2)
    if path == STDOUT:
        sys.stdout.buffer.write(encoded + b"\n")
        return
    try:
        with open(path, "wb") as file:
            file.write(encoded + b"\n")
    except OSError as error:
        sys.exit(f"baton bench: --json {path}: {error.strerror}")
