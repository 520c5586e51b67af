"""POST /v1/chat/completions/{id}/cancel and /v1/completions/{id}/cancel: end an answer early, at any gateway."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import caller_of
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.identity import raw_jobs_of
from api.keyring import Caller
from api.schema.response import Cancellation
from shared.events import Finished, FinishReason
from shared.job import JobId

router = APIRouter(responses=error_responses(401, 404, 503))

At = Annotated[Gateway, Depends(gateway_of)]
By = Annotated[Caller, Depends(caller_of)]


@router.post("/v1/chat/completions/{completion_id}/cancel", summary="End an answer early")
async def cancel_chat_completion(completion_id: str, gateway: At, caller: By) -> Cancellation:
    """End an answer that the same API key asked for, whichever gateway it streams from.

    Its client gets an error of code `cancelled`. Cancelling what has ended changes nothing; what ended more than five
    minutes ago is not known any more.
    """
    job_id = JobId(completion_id)
    await gateway.ownership.check(job_id, caller)
    return Cancellation(id=completion_id, object="chat.completion", cancelled=await _end(gateway, job_id, caller))


@router.post("/v1/completions/{completion_id}/cancel", summary="End continued texts early")
async def cancel_completion(completion_id: str, gateway: At, caller: By) -> Cancellation:
    """End the continuations of all prompts of one request, as an answer of a chat."""
    job_ids = await gateway.ownership.owned(completion_id, raw_jobs_of(completion_id), caller)
    ends = await asyncio.gather(*(_end(gateway, job_id, caller) for job_id in job_ids))
    return Cancellation(id=completion_id, object="text_completion", cancelled=any(ends))


async def _end(gateway: Gateway, job_id: JobId, caller: Caller) -> bool:
    """Return whether the job was ended before its time, now or earlier."""
    is_cancelled = await gateway.canceller.cancel(job_id, caller)
    if (ending := await gateway.answers.ending(job_id)) is not None:
        is_cancelled = isinstance(ending, Finished) and ending.reason is FinishReason.CANCELLED
    return is_cancelled
