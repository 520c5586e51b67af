"""GET /v1/chat/completions/{id}/events: go on with a stream that broke, at any gateway."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from sse_starlette import EventSourceResponse

from api.calls.reply import Replies
from api.completion import ChunkWriter, Heading
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.relay import ChatStream, while_connected
from api.responses.desk import ID_PREFIX
from shared.errors import CompletionNotFound, InvalidRequest
from shared.job import JobId

router = APIRouter()


@router.get(
    "/v1/chat/completions/{completion_id}/events",
    summary="Go on with a stream",
    response_class=EventSourceResponse,
    response_description="The chunks that follow, as server-sent events.",
    responses=error_responses(400, 401, 404, 503),
)
async def resume_chat_completion(
    request: Request,
    completion_id: str,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    last_event_id: Annotated[str | None, Header()] = None,
    include_usage: bool = False,
) -> Response:
    """Stream what follows the event `Last-Event-ID` of an answer, or all of it; answers are kept for five minutes."""
    if completion_id.startswith(ID_PREFIX):  # may be of another key: GET /v1/responses/{id} looks
        raise CompletionNotFound(f"There is no chat completion {completion_id[:100]!r}.", param="id")
    delivered = _numbers(last_event_id)
    return await while_connected(request, _resumed(gateway, JobId(completion_id), delivered, include_usage))


async def _resumed(
    gateway: Gateway, job_id: JobId, delivered: tuple[int, ...] | None, includes_usage: bool
) -> Response:
    started = await gateway.answers.start(job_id)
    delivered = delivered or (0,) * started.num_choices
    if len(delivered) != started.num_choices:
        raise _not_an_id()
    replies = Replies.of(job_id, started.calling)
    events = gateway.answers.follow(job_id, min(delivered) if replies is None else 0)
    writer = ChunkWriter(Heading.said(started), delivered, includes_usage=includes_usage, replies=replies)
    return ChatStream(writer, [], events, gateway.settings.keep_alive_s)


def _numbers(last_event_id: str | None) -> tuple[int, ...] | None:
    """Return how far each choice was delivered; None if nothing was."""
    if last_event_id is None:
        return None
    if not re.fullmatch("[0-9]{1,9}(,[0-9]{1,9})*", last_event_id):
        raise _not_an_id()
    return tuple(map(int, last_event_id.split(",")))


def _not_an_id() -> InvalidRequest:
    return InvalidRequest(
        "Last-Event-ID must be the id of an event of this stream: a number for each of its choices.",
        param="Last-Event-ID",
    )
