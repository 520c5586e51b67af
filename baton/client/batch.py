"""Many requests at once over one HTTP client, of which a bounded number is at the server; their order is kept."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread

import httpx2

from baton.client.answer import ChatCompletionResponse, ChatCompletionStreamResponse
from baton.client.bar import progress_bar
from baton.client.endpoint import Endpoint
from baton.client.exchange import ask_over, encode, stream_over
from baton.client.mailbox import Mailbox
from baton.client.request import InferRequest, RequestConfig, body_of
from baton.client.stats import Metric

CHAT = "chat/completions"


@dataclass(frozen=True, slots=True)
class _Line:
    """What the requests of a batch share while they are under way."""

    client: httpx2.AsyncClient
    turn: asyncio.Semaphore
    count: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one call; each waits for its turn, and only then are its files read."""

    endpoint: Endpoint
    model: str
    requests: Sequence[InferRequest]
    config: RequestConfig
    metrics: Sequence[Metric]
    max_connections: int
    is_shown: bool

    async def answers(self, *, strict: bool) -> list[ChatCompletionResponse | OSError]:
        """Return an answer for each request; the first failure ends it all, or else stands in its answer's place."""
        answer = self._answer if strict else self._answer_or_error
        try:
            async with self._open() as line, asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(line, request)) for request in self.requests]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def streams(self) -> list[Iterator[ChatCompletionStreamResponse]]:
        """Return an iterator of chunks for each request; all of them run at once, whichever is read."""
        mailboxes = [Mailbox() for _ in self.requests]
        Thread(target=self._receive, args=(mailboxes,), name="baton-streams", daemon=True).start()
        return [mailbox.drain() for mailbox in mailboxes]

    async def _answer(self, line: _Line, request: InferRequest) -> ChatCompletionResponse | OSError:
        async with line.turn:
            body = await asyncio.to_thread(self._encoded, request)
            response = await ask_over(line.client, self.endpoint, CHAT, body, ChatCompletionResponse)
        self._end(line, response)
        return response

    async def _answer_or_error(self, line: _Line, request: InferRequest) -> ChatCompletionResponse | OSError:
        try:
            return await self._answer(line, request)
        except OSError as error:
            self._end(line, None)
            return error

    def _receive(self, mailboxes: list[Mailbox]) -> None:
        try:
            asyncio.run(self._fill_all(mailboxes))
        finally:
            for mailbox in mailboxes:
                mailbox.end(ConnectionError("the thread that receives the streams broke"))

    async def _fill_all(self, mailboxes: list[Mailbox]) -> None:
        async with self._open() as line:
            fillings = (self._fill(line, *pair) for pair in zip(self.requests, mailboxes, strict=True))
            tasks = [asyncio.create_task(filling) for filling in fillings]
            for task, mailbox in zip(tasks, mailboxes, strict=True):
                task.add_done_callback(partial(_end_as, mailbox))
            await asyncio.wait(tasks)

    async def _fill(self, line: _Line, request: InferRequest, mailbox: Mailbox) -> None:
        """Pass the chunks on until nobody wants them; closing the stream cancels it on the server."""
        last = None
        async with line.turn:
            body = await asyncio.to_thread(self._encoded, request)
            chunks = stream_over(line.client, self.endpoint, CHAT, body, ChatCompletionStreamResponse)
            async with aclosing(chunks):
                async for last in chunks:
                    if mailbox.is_left:
                        return
                    mailbox.put(last)
        self._end(line, last)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Line]:
        with progress_bar(len(self.requests), is_shown=self.is_shown) as count:
            async with self.endpoint.open_async(self.max_connections) as client:
                yield _Line(client, asyncio.Semaphore(self.max_connections), count)

    def _encoded(self, request: InferRequest) -> bytes:
        return encode(body_of(self.model, request, self.config))

    def _end(self, line: _Line, output: ChatCompletionResponse | ChatCompletionStreamResponse | None) -> None:
        line.count()
        if output is not None:
            for metric in self.metrics:
                metric.update(output)


def _end_as(mailbox: Mailbox, filling: asyncio.Task[None]) -> None:
    mailbox.end(filling.exception())
