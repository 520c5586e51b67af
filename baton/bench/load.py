"""Sends a workload in closed or open loop and measures each request."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import cycle
from typing import Any

import msgspec

from baton.bench.arrival import arrivals
from baton.bench.connection import Connections
from baton.bench.measurement import Measurement
from baton.bench.reply import Reply
from baton.bench.settings import BenchSettings
from baton.bench.workload import Conversation, Turn

INTERRUPTED = "interrupted"
"""The kind of error of a request that a person did not want to wait for."""


class Load:
    """One run over one set of connections; created for it, and of no use after it.

    `on_end` is called after each request.
    """

    def __init__(self, settings: BenchSettings, connections: Connections, on_end: Callable[[], None]) -> None:
        self.measurements: list[Measurement] = []
        self._settings = settings
        self._connections = connections
        self._on_end = on_end
        self._is_stopped = False
        self._num_sent = 0
        self._ends_s = float("inf")
        self._running: set[asyncio.Task[None]] = set()
        options: dict[str, Any] = {"stream": settings.stream}
        if settings.stream:
            options["stream_options"] = {"include_usage": True}
        self._options = options | msgspec.json.decode(settings.extra_body)

    async def warm_up(self, conversations: Sequence[Conversation]) -> None:
        """Hold some conversations at once."""
        async with asyncio.TaskGroup() as self._group:
            for conversation in conversations:
                self._start(self._converse(conversation, time.monotonic()))

    async def run(self, conversations: Sequence[Conversation]) -> None:
        """Send until the number or the time is used up, and wait for the last answer."""
        waiting = cycle(conversations)
        began_s = time.monotonic()
        self._ends_s = began_s + (self._settings.duration_s or float("inf"))
        async with asyncio.TaskGroup() as self._group:
            if (num_clients := self._settings.num_clients) is None:
                self._start(self._ask_on_time(waiting, began_s))
            else:
                for _ in range(num_clients):
                    self._start(self._ask_again(waiting))

    def stop(self) -> None:
        """Send no more, and let go of what is under way."""
        self._is_stopped = True
        for task in self._running:
            task.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask_again(self, waiting: "cycle[Conversation]") -> None:
        while self._may_send():
            await self._converse(next(waiting), time.monotonic())

    async def _ask_on_time(self, waiting: "cycle[Conversation]", began_s: float) -> None:
        rate, is_poisson = self._settings.request_rate, self._settings.arrival == "poisson"
        assert rate is not None
        for offset_s in arrivals(rate, self._settings.seed, is_poisson=is_poisson):
            due_s = began_s + offset_s
            if due_s > self._ends_s:
                return
            await asyncio.sleep(due_s - time.monotonic())
            if not self._may_send():
                return
            self._start(self._converse(next(waiting), due_s))  # runs, and is counted, before this one goes on

    def _may_send(self) -> bool:
        limit = self._settings.max_requests
        return not self._is_stopped and time.monotonic() < self._ends_s and (limit is None or self._num_sent < limit)

    async def _converse(self, conversation: Conversation, due_s: float) -> None:
        """Ask the questions of a conversation; after an error the later ones would make no sense."""
        said: list[dict[str, Any]] = []
        if conversation.system is not None:
            said.append({"role": "system", "content": conversation.system})
        for turn in conversation.turns:
            said.append({"role": "user", "content": turn.content})
            self._num_sent += 1
            answer = await self._ask(conversation.model, said, turn, due_s)
            if answer is None or not self._may_send():
                return
            said.append({"role": "assistant", "content": answer})
            due_s = time.monotonic()

    async def _ask(self, model: str, messages: list[dict[str, Any]], turn: Turn, due_s: float) -> str | None:
        """Return the answer, or None if there is none."""
        question = {"model": model, "messages": messages, "max_tokens": turn.max_tokens}
        body = msgspec.json.encode(question | self._options)
        measurement = Measurement(model, due_s, time.monotonic())
        self.measurements.append(measurement)
        reply = Reply(measurement)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._connections.ask(body, reply)
        except TimeoutError:
            measurement.error = f"no answer within {self._settings.timeout_s:g} s"
        except OSError as error:
            measurement.error = _kind(error)
        except asyncio.CancelledError:
            measurement.error = INTERRUPTED
            raise
        finally:
            self._on_end()
        return None if measurement.error else "".join(reply.text)


def _kind(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error.strerror or error)
