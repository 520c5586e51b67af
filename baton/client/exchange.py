"""One request and its answer, plain or streamed, for scripts that wait and for those that don't."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import TypeVar

import httpx2
import msgspec

from baton.client.answer import ChatCompletionStreamResponse, CompletionStreamResponse
from baton.client.course import Course
from baton.client.endpoint import Endpoint, plain_errors
from baton.client.error import HTTPError
from baton.client.reading import StreamReader, read_answer
from baton.client.request import Body

_Answer = TypeVar("_Answer")
_Chunk = TypeVar("_Chunk", bound=ChatCompletionStreamResponse | CompletionStreamResponse)


def encode(body: Body) -> bytes:
    """Return the body as JSON; pictures make it large, so that it may be worth a thread."""
    return msgspec.json.encode(body)


def fetch(endpoint: Endpoint, path: str, shape: type[_Answer]) -> _Answer:
    """Get what stands at a path. Raises HTTPError, ConnectionError, TimeoutError, as all of these do."""
    with plain_errors(endpoint), endpoint.open() as client:
        response = client.get(path)
    return read_answer(response.content, shape, response.status_code)


async def fetch_async(endpoint: Endpoint, path: str, shape: type[_Answer]) -> _Answer:
    """Get what stands at a path."""
    with plain_errors(endpoint):
        async with endpoint.open_async() as client:
            response = await client.get(path)
    return read_answer(response.content, shape, response.status_code)


def ask(endpoint: Endpoint, path: str, body: bytes, shape: type[_Answer]) -> _Answer:
    """Return the whole answer."""
    course = Course(endpoint, path, body)
    with plain_errors(endpoint), endpoint.open() as client:
        while True:
            try:
                response = client.request(**course.request())
                return read_answer(response.content, shape, response.status_code)
            except (httpx2.RequestError, HTTPError) as error:
                time.sleep(course.detour_s(error))


async def ask_async(endpoint: Endpoint, path: str, body: bytes, shape: type[_Answer]) -> _Answer:
    """Return the whole answer."""
    async with endpoint.open_async() as client:
        return await ask_over(client, endpoint, path, body, shape)


async def ask_over(
    client: httpx2.AsyncClient, endpoint: Endpoint, path: str, body: bytes, shape: type[_Answer]
) -> _Answer:
    """Return the whole answer, over a client of this endpoint."""
    course = Course(endpoint, path, body)
    with plain_errors(endpoint):
        while True:
            try:
                response = await client.request(**course.request())
                return read_answer(response.content, shape, response.status_code)
            except (httpx2.RequestError, HTTPError) as error:
                await asyncio.sleep(course.detour_s(error))


def stream(endpoint: Endpoint, path: str, body: bytes, shape: type[_Chunk]) -> Generator[_Chunk]:
    """Yield the answer's chunks; it is asked for at the first one, and leaving cancels it on the server.

    A stream that breaks is gone on with, at the next server if there are several.
    """
    reader, course = StreamReader(shape), Course(endpoint, path, body)
    with plain_errors(endpoint), endpoint.open() as client:
        while not reader.is_complete:
            try:
                with client.stream(**course.request()) as response:
                    if not response.is_success:
                        read_answer(response.read(), shape, response.status_code)
                    for event in httpx2.EventSource(response):
                        yield from reader.read(event.data)
                        reader.mark(course, event.id)
                reader.end()
            except (httpx2.RequestError, ConnectionError, HTTPError) as error:
                time.sleep(course.detour_s(error))
                reader.rewind()


async def stream_async(endpoint: Endpoint, path: str, body: bytes, shape: type[_Chunk]) -> AsyncGenerator[_Chunk]:
    """Yield the answer's chunks; it is asked for at the first one, and leaving cancels it on the server."""
    async with endpoint.open_async() as client, aclosing(stream_over(client, endpoint, path, body, shape)) as chunks:
        async for chunk in chunks:
            yield chunk


async def stream_over(
    client: httpx2.AsyncClient, endpoint: Endpoint, path: str, body: bytes, shape: type[_Chunk]
) -> AsyncGenerator[_Chunk]:
    """Yield the answer's chunks, over a client of this endpoint, as `stream` does."""
    reader, course = StreamReader(shape), Course(endpoint, path, body)
    with plain_errors(endpoint):
        while not reader.is_complete:
            try:
                async with client.stream(**course.request()) as response:
                    if not response.is_success:
                        read_answer(await response.aread(), shape, response.status_code)
                    async for event in httpx2.EventSource(response):
                        for chunk in reader.read(event.data):
                            yield chunk
                        reader.mark(course, event.id)
                reader.end()
            except (httpx2.RequestError, ConnectionError, HTTPError) as error:
                await asyncio.sleep(course.detour_s(error))
                reader.rewind()
