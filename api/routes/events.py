"""GET /v1/chat/completions/{id}/events and /v1/completions/{id}/events: go on with a stream, at any gateway."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from sse_starlette import EventSourceResponse

from api.auth import caller_of
from api.calls.reply import Replies
from api.completion import ChunkWriter, Heading
from api.continuation import Continuations, ContinuationWriter
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.identity import CHAT_PREFIX, raw_jobs_of
from api.keyring import Caller
from api.relay import ChatStream, while_connected
from api.together import together
from shared.errors import CompletionNotFound, InvalidRequest
from shared.job import JobId

router = APIRouter(
    default_response_class=EventSourceResponse,
    responses=error_responses(400, 401, 404, 503),
)

At = Annotated[Gateway, Depends(gateway_of)]
By = Annotated[Caller, Depends(caller_of)]
Delivered = tuple[int, ...] | None
"""How far each choice was delivered; None if nothing was."""


def _delivered(last_event_id: Annotated[str | None, Header()] = None) -> Delivered:
    if last_event_id is None:
        return None
    if not re.fullmatch("[0-9]{1,9}(,[0-9]{1,9})*", last_event_id):
        raise _not_an_id()
    return tuple(map(int, last_event_id.split(",")))


Behind = Annotated[Delivered, Depends(_delivered)]


@router.get(
    "/v1/chat/completions/{completion_id}/events",
    summary="Go on with a stream",
    response_description="The chunks that follow, as server-sent events.",
)
async def resume_chat_completion(
    request: Request, completion_id: str, gateway: At, caller: By, delivered: Behind, include_usage: bool = False
) -> Response:
    """Stream what follows the event `Last-Event-ID` of an answer, or all of it.

    Answers are kept for five minutes, for the API key that asked.
    """
    if not completion_id.startswith(CHAT_PREFIX):  # GET /v1/responses/{id} has others
        raise CompletionNotFound(f"There is no chat completion {completion_id[:100]!r}.", param="id")
    await gateway.ownership.check(JobId(completion_id), caller)
    return await while_connected(request, _chat(gateway, JobId(completion_id), delivered, include_usage))


@router.get(
    "/v1/completions/{completion_id}/events",
    summary="Go on with the stream of a continued text",
    response_description="The chunks that follow, as server-sent events.",
)
async def resume_completion(
    request: Request, completion_id: str, gateway: At, caller: By, delivered: Behind, include_usage: bool = False
) -> Response:
    """Stream what follows the event `Last-Event-ID` of the continuations, or all of them, as of a chat."""
    if not (job_ids := raw_jobs_of(completion_id)):
        raise CompletionNotFound(f"There is no completion {completion_id[:100]!r}.", param="id")
    for job_id in job_ids:
        await gateway.ownership.check(job_id, caller)
    return await while_connected(request, _continued(gateway, completion_id, job_ids, delivered, include_usage))


async def _chat(gateway: Gateway, job_id: JobId, delivered: Delivered, includes_usage: bool) -> Response:
    started = await gateway.answers.start(job_id)
    delivered = delivered or (0,) * started.num_choices
    if len(delivered) != started.num_choices:
        raise _not_an_id()
    replies = Replies.of(job_id, started.calling)
    events = gateway.answers.follow(job_id, min(delivered) if replies is None else 0)
    writer = ChunkWriter(Heading.said(started), delivered, includes_usage=includes_usage, replies=replies)
    return ChatStream(writer, [], events, gateway.settings.keep_alive_s)


async def _continued(
    gateway: Gateway, completion_id: str, job_ids: Sequence[JobId], delivered: Delivered, includes_usage: bool
) -> Response:
    """Read all that was said: where a token begins depends on those before it, and the usage on all prompts."""
    told = Continuations(completion_id, (await gateway.answers.start(job_ids[0])).num_choices)
    if delivered is not None and len(delivered) != told.num_choices:
        raise _not_an_id()
    events = together([gateway.answers.follow(job_id, after_seq=0) for job_id in job_ids])
    writer = ContinuationWriter(told, delivered or (), includes_usage=includes_usage)
    return ChatStream(writer, [], events, gateway.settings.keep_alive_s)


def _not_an_id() -> InvalidRequest:
    return InvalidRequest(
        "Last-Event-ID must be the id of an event of this stream: a number for each of its choices.",
        param="Last-Event-ID",
    )
