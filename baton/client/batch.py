"""Many requests at once over one HTTP client, of which a bounded number is at the server; their order is kept."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread

import httpx2

from baton.client.answer import ChatCompletionResponse, ChatCompletionStreamResponse
from baton.client.bar import progress_bar
from baton.client.endpoint import Endpoint
from baton.client.exchange import ask_over, encode, stream_over
from baton.client.request import InferRequest, RequestConfig, body_of
from baton.client.stats import Metric

CHAT = "chat/completions"


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one call; each takes its turn, and only then are its files read."""

    endpoint: Endpoint
    model: str
    requests: Sequence[InferRequest]
    config: RequestConfig
    metrics: Sequence[Metric]
    max_connections: int
    is_shown: bool

    async def answers(self, *, strict: bool) -> list[ChatCompletionResponse | OSError]:
        """Return an answer for each request; the first failure ends it all, or else stands in its answer's place."""
        turn = asyncio.Semaphore(self.max_connections)
        try:
            async with self._open() as (client, count), asyncio.TaskGroup() as group:
                answers = (self._answer(client, turn, request, count, strict=strict) for request in self.requests)
                tasks = [group.create_task(answer) for answer in answers]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def streams(self) -> list[Iterator[ChatCompletionStreamResponse]]:
        """Return an iterator of chunks for each request; all of them run while any is read."""
        mailboxes = [_Mailbox() for _ in self.requests]
        Thread(target=self._receive, args=(mailboxes,), name="baton-streams", daemon=True).start()
        return [mailbox.drain() for mailbox in mailboxes]

    def _receive(self, mailboxes: list["_Mailbox"]) -> None:
        try:
            asyncio.run(self._fill_all(mailboxes))
        finally:
            for mailbox in mailboxes:
                mailbox.end(ConnectionError("the thread that receives the streams broke"))  # else they end before

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[httpx2.AsyncClient, Callable[[], None]]]:
        with progress_bar(len(self.requests), is_shown=self.is_shown) as count:
            async with self.endpoint.open_async(self.max_connections) as client:
                yield client, count

    async def _answer(
        self,
        client: httpx2.AsyncClient,
        turn: asyncio.Semaphore,
        request: InferRequest,
        count: Callable[[], None],
        *,
        strict: bool,
    ) -> ChatCompletionResponse | OSError:
        async with turn:
            try:
                body = await asyncio.to_thread(self._encoded, request)
                response = await ask_over(client, self.endpoint, CHAT, body, ChatCompletionResponse)
            except OSError as error:
                if strict:
                    raise
                count()
                return error
        self._end(response, count)
        return response

    async def _fill_all(self, mailboxes: list["_Mailbox"]) -> None:
        turn = asyncio.Semaphore(self.max_connections)
        async with self._open() as (client, count):
            tasks = []
            for request, mailbox in zip(self.requests, mailboxes, strict=True):
                tasks.append(asyncio.create_task(self._fill(client, turn, request, mailbox, count)))
                tasks[-1].add_done_callback(mailbox.close)
            await asyncio.wait(tasks)

    async def _fill(
        self,
        client: httpx2.AsyncClient,
        turn: asyncio.Semaphore,
        request: InferRequest,
        mailbox: "_Mailbox",
        count: Callable[[], None],
    ) -> None:
        async with turn:
            body = await asyncio.to_thread(self._encoded, request)
            chunks = stream_over(client, self.endpoint, CHAT, body, ChatCompletionStreamResponse)
            async with aclosing(chunks):
                async for chunk in chunks:
                    if mailbox.is_left.is_set():
                        return
                    mailbox.put(chunk)
        self._end(chunk, count)

    def _encoded(self, request: InferRequest) -> bytes:
        return encode(body_of(self.model, request, self.config))

    def _end(self, output: ChatCompletionResponse | ChatCompletionStreamResponse, count: Callable[[], None]) -> None:
        count()
        for metric in self.metrics:
            metric.update(output)


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class _Mailbox:
    """Carries one stream's chunks out of the thread that receives them."""

    def __init__(self) -> None:
        self.is_left = Event()
        self._queue: SimpleQueue[ChatCompletionStreamResponse | _End] = SimpleQueue()

    def put(self, chunk: ChatCompletionStreamResponse) -> None:
        self._queue.put(chunk)

    def close(self, task: asyncio.Task[None]) -> None:
        self.end(task.exception())

    def end(self, error: BaseException | None) -> None:
        self._queue.put(_End(error))

    def drain(self) -> Iterator[ChatCompletionStreamResponse]:
        """Yield the chunks; leaving lets go of the stream at its next one."""
        try:
            while not isinstance(got := self._queue.get(), _End):
                yield got
        finally:
            self.is_left.set()
        if got.error is not None:
            raise got.error
