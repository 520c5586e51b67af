"""Which paths a batch may ask, and what stands behind each: a line is read, let in and answered as over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from api.completion import fold
from api.continuation import Continuations, fold_together
from api.intake import Intake
from api.order import Order
from api.responses.desk import ResponseDesk
from api.responses.draft import fold_response
from api.schema.completion import CompletionRequest, parse_completion
from api.schema.request import ChatCompletionRequest
from api.schema.request import parse as parse_chat
from api.schema.responses import CreateResponse
from api.schema.responses import parse as parse_response
from api.visit import Visit
from shared.errors import InvalidRequest
from shared.events import JobEvent

Request: TypeAlias = ChatCompletionRequest | CompletionRequest | CreateResponse
Fold: TypeAlias = Callable[[AsyncIterator[list[JobEvent]]], Awaitable[BaseModel]]
_Asked = TypeVar("_Asked", bound=Request)


@dataclass(frozen=True, slots=True)
class Doors:
    """What lets requests in."""

    intake: Intake
    responses: ResponseDesk


@dataclass(frozen=True, slots=True)
class Accepted:
    """The jobs that a line became, to be run one after the other, and what is made of all they say."""

    orders: tuple[Order, ...]
    fold: Fold


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[_Asked]):
    """How a path reads its body, and how it lets it in."""

    parse: Callable[[bytes], _Asked]
    accept: Callable[[Doors, _Asked, Visit], Awaitable[Accepted]]


async def _chat(doors: Doors, asked: ChatCompletionRequest, visit: Visit) -> Accepted:
    order = await doors.intake.accept(asked, visit)
    return Accepted((order,), partial(fold, order.job))


async def _completion(doors: Doors, asked: CompletionRequest, visit: Visit) -> Accepted:
    orders = await doors.intake.accept_raw(asked, visit)
    return Accepted(orders, partial(fold_together, Continuations.of([order.job for order in orders])))


async def _response(doors: Doors, asked: CreateResponse, visit: Visit) -> Accepted:
    if asked.background:
        raise InvalidRequest("A line of a batch is waited for; leave background out.", param="background")
    accepted = await doors.responses.accept(asked, visit)
    return Accepted((accepted.order,), partial(fold_response, accepted.response))


ENDPOINTS: Mapping[str, Endpoint[ChatCompletionRequest] | Endpoint[CompletionRequest] | Endpoint[CreateResponse]] = {
    "/v1/chat/completions": Endpoint(parse_chat, _chat),
    "/v1/completions": Endpoint(parse_completion, _completion),
    "/v1/responses": Endpoint(parse_response, _response),
}
