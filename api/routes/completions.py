"""POST /v1/completions."""

import asyncio
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.continuation import Continuations, ContinuationWriter, fold_together
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.order import Order
from api.relay import ChatStream, while_connected
from api.routes.chat import MAX_INLINE_PARSE, STREAM
from api.schema.completion import CompletionRequest, TextCompletion, parse_completion
from api.together import together
from api.visit import enter_job, label, visit_of

router = APIRouter()

EXAMPLE = {"model": "internvl2-2b", "prompt": "Once upon a time", "max_tokens": 32, "stream": True}


@router.post(
    "/v1/completions",
    summary="Continue a text",
    response_model=TextCompletion,
    response_description="The continuations; with `stream` their chunks as server-sent events, `[DONE]` at the end.",
    responses={200: STREAM, **error_responses(400, 401, 403, 404, 413, 429, 500, 502, 503, 504)},
    openapi_extra=json_body(CompletionRequest, EXAMPLE),
)
async def create_completion(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Continue one or several prompts as they stand, without the model's chat template.

    Control tokens that are typed in a prompt stay text. Each prompt is a request of its own for all limits; whatever
    ends one badly ends all.
    """
    body = await request.body()
    asked = parse_completion(body) if len(body) <= MAX_INLINE_PARSE else await asyncio.to_thread(parse_completion, body)
    visit = visit_of(request)
    label(visit, asked.user)
    orders = await while_connected(request, gateway.intake.accept_raw(asked, visit))
    told = Continuations.of([order.job for order in orders])
    enter_job(visit, told.id)
    answer = _streamed(gateway, orders, told, asked) if asked.stream else _whole(gateway, orders, told)
    return await while_connected(request, answer)


async def _whole(gateway: Gateway, orders: tuple[Order, ...], told: Continuations) -> Response:
    async with aclosing(together([gateway.dispatcher.stream(order) for order in orders])) as batches:
        completion = await fold_together(told, batches)
    return Response(completion.model_dump_json(), media_type="application/json")


async def _streamed(
    gateway: Gateway, orders: tuple[Order, ...], told: Continuations, asked: CompletionRequest
) -> Response:
    wait_s = gateway.settings.first_event_wait_s
    batches = together([gateway.dispatcher.stream(order, wait_s) for order in orders])
    first = await anext(batches)
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    writer = ContinuationWriter(told, includes_usage=includes_usage)
    return ChatStream(writer, first, batches, gateway.settings.keep_alive_s)
