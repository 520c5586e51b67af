"""POST /v1/chat/completions."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from api.calls.reply import Replies
from api.completion import ChunkWriter, Heading, failure, fold
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.order import Order
from api.relay import ChatStream, while_connected
from api.schema.request import ChatCompletionRequest, parse
from api.schema.response import ChatCompletion
from api.visit import enter_job, label, visit_of
from shared.events import Failed

router = APIRouter()

EXAMPLE = {
    "model": "internvl2-2b",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
                {"type": "text", "text": "What is on the sofa?"},
            ],
        }
    ],
    "max_tokens": 128,
    "stream": True,
}
_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["data"],
}
STREAM: dict[str, Any] = {"content": {"text/event-stream": {"schema": _EVENT}}}

MAX_INLINE_PARSE = 2**20
"""Bytes of a body that are parsed in the event loop; more is parsed in a thread."""


@router.post(
    "/v1/chat/completions",
    summary="Ask a model",
    response_model=ChatCompletion,
    response_description="The answer; with `stream` its chunks as server-sent events, `[DONE]` at the end.",
    responses={200: STREAM, **error_responses(400, 401, 404, 413, 429, 500, 502, 503, 504)},
    openapi_extra=json_body(ChatCompletionRequest, EXAMPLE),
)
async def create_chat_completion(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Answer a conversation, whole or as a stream.

    Media are addresses (http(s) URLs, `data:` URIs or base64) in content parts, in `<img>` tags, or in lists.
    """
    body = await request.body()
    asked = parse(body) if len(body) <= MAX_INLINE_PARSE else await asyncio.to_thread(parse, body)
    visit = visit_of(request)
    label(visit, asked.safety_identifier or asked.user, asked.metadata)
    order = await while_connected(request, gateway.intake.accept(asked, visit))
    enter_job(visit, order.job.id)
    answer = _streamed(gateway, order, asked) if asked.stream else _whole(gateway, order)
    return await while_connected(request, answer)


async def _whole(gateway: Gateway, order: Order) -> Response:
    async with aclosing(gateway.dispatcher.stream(order)) as batches:
        completion = await fold(order.job, batches)
    return Response(completion.model_dump_json(), media_type="application/json")


async def _streamed(gateway: Gateway, order: Order, asked: ChatCompletionRequest) -> Response:
    """Open the stream once its first event is there, or has been waited for long enough."""
    batches = gateway.dispatcher.stream(order, gateway.settings.first_event_wait_s)
    first = await anext(batches)
    if first and isinstance(first[0], Failed):
        await batches.aclose()
        raise failure(first[0])
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    replies = Replies.of(order.job.id, order.job.calling)
    writer = ChunkWriter(Heading.of(order.job), (0,) * order.job.n, includes_usage=includes_usage, replies=replies)
    ahead = partial(gateway.positions.ahead, order.job.id)
    return ChatStream(writer, first, batches, gateway.settings.keep_alive_s, ahead)
