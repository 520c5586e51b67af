"""GET /v1/chat/completions/{id}/events: go on with a stream that broke, at any gateway."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from api.completion import ChunkWriter, Heading
from api.gateway import Gateway, gateway_of
from api.relay import ChatStream, while_connected
from shared.errors import InvalidRequest
from shared.job import JobId

router = APIRouter()


@router.get("/v1/chat/completions/{completion_id}/events")
async def resume_chat_completion(
    request: Request,
    completion_id: str,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    last_event_id: Annotated[str | None, Header()] = None,
    include_usage: bool = False,
) -> Response:
    """Stream what follows the event `Last-Event-ID` of an answer, or all of it; answers are kept for five minutes."""
    after_seq = _number(last_event_id)
    return await while_connected(request, _resumed(gateway, JobId(completion_id), after_seq, include_usage))


async def _resumed(gateway: Gateway, job_id: JobId, after_seq: int, includes_usage: bool) -> Response:
    started = await gateway.answers.start(job_id)
    events = gateway.answers.follow(job_id, after_seq)
    writer = ChunkWriter(Heading(job_id, started.model, int(started.created_s)), includes_usage=includes_usage)
    return ChatStream(writer, [], events, gateway.settings.keep_alive_s)


def _number(last_event_id: str | None) -> int:
    if last_event_id is None:
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10):
        raise InvalidRequest(
            "Last-Event-ID must be the id of an event of this stream, a number.", param="Last-Event-ID"
        )
    return int(last_event_id)
