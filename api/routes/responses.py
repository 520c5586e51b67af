"""/v1/responses: OpenAI's Responses API."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from api.auth import caller_of
from api.completion import failure
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.relay import ChatStream, while_connected
from api.responses.desk import Accepted
from api.responses.draft import Draft, fold_response
from api.responses.listing import Order, listed
from api.responses.wording import reworded
from api.responses.writer import ResponseWriter
from api.routes.chat import MAX_INLINE_PARSE, STREAM
from api.schema.responses import CreateResponse, parse
from api.schema.responses_object import InputItemList, ResponseDeleted, ResponseObject
from api.visit import enter_job, visit_of
from shared.errors import InvalidRequest
from shared.events import Failed
from shared.kept import KeptResponse

router = APIRouter()

EXAMPLE = {
    "model": "internvl2-2b",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://example.com/cat.png"},
                {"type": "input_text", "text": "What is on the sofa?"},
            ],
        }
    ],
    "max_output_tokens": 128,
}

At = Annotated[Gateway, Depends(gateway_of)]
By = Annotated[Caller, Depends(caller_of)]


def _check_names(request: Request) -> None:
    """Refuse parameters that the route doesn't know; what a response includes is said when it is asked for."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    if unknown := next((name for name in request.query_params if name not in known), None):
        raise InvalidRequest(f"Unknown parameter: {unknown[:100]}.", param=unknown[:100])


@router.post(
    "/v1/responses",
    summary="Ask a model for a response",
    response_model=ResponseObject,
    response_description="The response; with `stream` its events as server-sent events.",
    responses={200: STREAM, **error_responses(400, 401, 403, 404, 413, 429, 500, 502, 503, 504)},
    openapi_extra=json_body(CreateResponse, EXAMPLE),
)
async def create_response(request: Request, gateway: At) -> Response:
    """Answer a conversation, whole, as a stream, or in the background."""
    body = await request.body()
    asked = parse(body) if len(body) <= MAX_INLINE_PARSE else await asyncio.to_thread(parse, body)
    visit = visit_of(request)
    accepted = await while_connected(request, gateway.responses.accept(asked, visit))
    enter_job(visit, accepted.order.job.id)
    if asked.background:
        await while_connected(request, gateway.background.start(accepted.order))
        return _followed(gateway, accepted.response) if asked.stream else _shown(Draft(accepted.response))
    answer = _streamed(gateway, accepted) if asked.stream else _whole(gateway, accepted)
    return await while_connected(request, answer)


@router.get(
    "/v1/responses/{response_id}",
    summary="Read a response",
    response_model=ResponseObject,
    response_description="The response as it stands; with `stream` its events as server-sent events.",
    responses={200: STREAM, **error_responses(400, 401, 404, 502, 503)},
    dependencies=[Depends(_check_names)],
)
async def retrieve_response(
    response_id: str,
    gateway: At,
    caller: By,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
    include_obfuscation: Annotated[Literal[False] | None, Query()] = None,
) -> Response:
    """Read a stored response, or follow its events from any of them on, at any gateway."""
    kept = await gateway.responses.find(response_id, caller)
    if stream:
        return _followed(gateway, kept, starting_after)
    if starting_after is not None:
        raise InvalidRequest("starting_after is only allowed when stream is true.", param="starting_after")
    return _shown(await gateway.responses.read(kept))


@router.post(
    "/v1/responses/{response_id}/cancel", summary="Cancel a response", responses=error_responses(401, 404, 503)
)
async def cancel_response(response_id: str, gateway: At, caller: By) -> ResponseObject:
    """Cancel a response that has not ended, at any gateway; one that has stays as it is."""
    kept = await gateway.responses.find(response_id, caller)
    return await gateway.responses.cancel(kept, caller)


@router.delete("/v1/responses/{response_id}", summary="Delete a response", responses=error_responses(401, 404, 503))
async def delete_response(response_id: str, gateway: At, caller: By) -> ResponseDeleted:
    """Forget a stored response; one that has not ended is cancelled."""
    kept = await gateway.responses.find(response_id, caller)
    await gateway.responses.delete(kept, caller)
    return ResponseDeleted(id=kept.id)


@router.get(
    "/v1/responses/{response_id}/input_items",
    summary="List what a response answers",
    responses=error_responses(400, 401, 404, 503),
    dependencies=[Depends(_check_names)],
)
async def list_input_items(
    response_id: str,
    gateway: At,
    caller: By,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
    after: str | None = None,
) -> InputItemList:
    """List the messages that a response answers, those of earlier responses included; media without their bytes."""
    return listed(await gateway.responses.find(response_id, caller), limit, order, after)


async def _whole(gateway: Gateway, accepted: Accepted) -> Response:
    async with aclosing(gateway.dispatcher.stream(accepted.order)) as batches:
        response = await fold_response(accepted.response, batches)
    return Response(response.model_dump_json(), media_type="application/json")


async def _streamed(gateway: Gateway, accepted: Accepted) -> Response:
    """Open the stream once its first event is there, or has been waited for long enough."""
    batches = gateway.dispatcher.stream(accepted.order, gateway.settings.first_event_wait_s)
    first = await anext(batches)
    if first and isinstance(first[0], Failed):
        await batches.aclose()
        raise reworded(failure(first[0]), accepted.response.places)
    ahead = partial(gateway.positions.ahead, accepted.order.job.id)
    return ChatStream(ResponseWriter(accepted.response), first, batches, gateway.settings.keep_alive_s, ahead)


def _followed(gateway: Gateway, response: KeptResponse, starting_after: int | None = None) -> Response:
    """Stream from the log; leaving cancels nothing."""
    events = gateway.answers.follow(response.id, after_seq=0)
    return ChatStream(ResponseWriter(response, starting_after), [], events, gateway.settings.keep_alive_s)


def _shown(draft: Draft) -> Response:
    return Response(draft.response().model_dump_json(), media_type="application/json")
