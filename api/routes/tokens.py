"""POST /tokenize and POST /detokenize."""

import asyncio
from contextlib import aclosing
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request

from api.completion import failure
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.order import Order
from api.relay import while_connected
from api.routes.chat import MAX_INLINE_PARSE
from api.schema.request import Schema, check_fields, read_fields
from api.schema.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from api.visit import enter_job, visit_of
from shared.errors import StreamInterrupted
from shared.events import Failed, Finished, TextDelta
from shared.progress import Candidate

router = APIRouter()

_REFUSALS = error_responses(400, 401, 403, 404, 413, 429, 500, 502, 503, 504)
_Asked = TypeVar("_Asked", bound=Schema)


@router.post(
    "/tokenize",
    summary="Show a prompt's tokens",
    responses=_REFUSALS,
    openapi_extra=json_body(TokenizeRequest, {"model": "internvl2-2b", "prompt": "Once upon a time"}),
)
async def tokenize(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Tokenized:
    """Show the tokens of a text, or of a conversation with its media as the model reads it, in vLLM's shape.

    It waits for a worker, but for none that is free; its limits are those of a chat.
    """
    asked = await _read(request, TokenizeRequest)
    order = await while_connected(request, gateway.intake.accept_lookup(asked, visit_of(request)))
    tokens = await _looked_up(request, gateway, order)
    worker = await gateway.registry.find(asked.model)
    strs = [token.token.decode(errors="replace") for token in tokens] if asked.return_token_strs else None
    token_ids = [token.token_id for token in tokens]
    return Tokenized(count=len(tokens), max_model_len=worker.max_model_len, tokens=token_ids, token_strs=strs)


@router.post(
    "/detokenize",
    summary="Show the text of tokens",
    responses=_REFUSALS,
    openapi_extra=json_body(DetokenizeRequest, {"model": "internvl2-2b", "tokens": [9843, 1813]}),
)
async def detokenize(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Detokenized:
    """Show the text of some tokens, in vLLM's shape; control tokens are spelled out."""
    asked = await _read(request, DetokenizeRequest)
    order = await while_connected(request, gateway.intake.accept_lookup(asked, visit_of(request)))
    tokens = await _looked_up(request, gateway, order)
    return Detokenized(prompt=b"".join(token.token for token in tokens).decode(errors="replace"))


async def _read(request: Request, schema: type[_Asked]) -> _Asked:
    body = await request.body()
    if len(body) <= MAX_INLINE_PARSE:
        return check_fields(schema, read_fields(body))
    return await asyncio.to_thread(lambda: check_fields(schema, read_fields(body)))


async def _looked_up(request: Request, gateway: Gateway, order: Order) -> list[Candidate]:
    enter_job(visit_of(request), order.job.id)
    return await while_connected(request, _tokens(gateway, order))


async def _tokens(gateway: Gateway, order: Order) -> list[Candidate]:
    tokens: list[Candidate] = []
    async with aclosing(gateway.dispatcher.stream(order)) as batches:
        async for events in batches:
            for event in events:
                match event:
                    case TextDelta():
                        tokens += [token.chosen for token in event.logprobs]
                    case Failed():
                        raise failure(event)
                    case Finished():
                        return tokens
                    case _:
                        pass
    raise StreamInterrupted("The answer broke off without an end.")
