"""Which paths a batch may ask, and what stands behind each: a line is read and answered as over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from api.completion import fold
from api.schema.request import ChatCompletionRequest, parse
from shared.events import JobEvent
from shared.job import ChatJob


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a path reads its body, and what it makes of the events."""

    parse: Callable[[bytes], ChatCompletionRequest]
    fold: Callable[[ChatJob, AsyncIterator[list[JobEvent]]], Awaitable[BaseModel]]


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(parse, fold),
}
