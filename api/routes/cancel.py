"""POST /v1/chat/completions/{id}/cancel: end an answer early, at any gateway."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import caller_of
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.schema.response import Cancellation
from shared.events import Finished, FinishReason
from shared.job import JobId

router = APIRouter()


@router.post(
    "/v1/chat/completions/{completion_id}/cancel",
    summary="End an answer early",
    responses=error_responses(401, 404, 503),
)
async def cancel_chat_completion(
    completion_id: str,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    caller: Annotated[Caller, Depends(caller_of)],
) -> Cancellation:
    """End an answer that the same API key asked for, whichever gateway it streams from.

    Its client gets an error of code `cancelled`. Cancelling what has ended changes nothing; what ended more than five
    minutes ago is not known any more.
    """
    job_id = JobId(completion_id)
    await gateway.ownership.check(job_id, caller)
    is_cancelled = await gateway.canceller.cancel(job_id, caller)
    if (ending := await gateway.answers.ending(job_id)) is not None:
        is_cancelled = isinstance(ending, Finished) and ending.reason is FinishReason.CANCELLED
    return Cancellation(id=job_id, cancelled=is_cancelled)
