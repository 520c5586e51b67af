"""/v1/batches: requests from a file, answered when there is time for them."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from api.auth import caller_of
from api.batch.endpoint import ENDPOINTS
from api.batch.record import InputFault, StoredBatch
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.schema import batch as schema
from api.schema.file import expiry_s
from api.schema.request import check_fields, read_fields
from shared.errors import InvalidRequest

router = APIRouter()

MAX_PAGE = 100
DEFAULT_PAGE = 20
EXAMPLE = {"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"}

AskingGateway = Annotated[Gateway, Depends(gateway_of)]
Asker = Annotated[Caller, Depends(caller_of)]


@router.post(
    "/v1/batches",
    summary="Ask all lines of a file",
    responses=error_responses(400, 401, 404, 413, 503),
    openapi_extra=json_body(schema.CreateBatch, EXAMPLE),
)
async def create_batch(request: Request, gateway: AskingGateway, caller: Asker) -> schema.Batch:
    """Ask every line of a file at low priority, and write the answers into another file, in the order of the lines."""
    asked = check_fields(schema.CreateBatch, read_fields(await request.body()))
    if asked.endpoint not in ENDPOINTS:
        raise InvalidRequest(
            f"A batch may ask {' or '.join(ENDPOINTS)}, not {asked.endpoint[:100]!r}.", param="endpoint"
        )
    after = asked.output_expires_after
    ttl_s = expiry_s(
        None if after is None else after.seconds, gateway.settings.file_ttl_s, "output_expires_after.seconds"
    )
    file = await gateway.batches.shelf.find(asked.input_file_id, caller.name)
    if file.purpose != "batch":
        raise InvalidRequest(
            f"The file's purpose is {file.purpose}; upload the requests for the purpose batch.", param="input_file_id"
        )
    batch = await gateway.batches.ledger.create(caller.name, asked.endpoint, file, asked.metadata, ttl_s)
    gateway.batches.runner.poke()
    return _shown(batch)


@router.get("/v1/batches", summary="List the batches", responses=error_responses(400, 401, 503))
async def list_batches(
    gateway: AskingGateway,
    caller: Asker,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
) -> schema.BatchList:
    """List the batches of the API key, newest first."""
    page = await gateway.batches.ledger.page(caller.name, after, limit)
    batches = [_shown(batch) for batch in page.records]
    ends = (batches[0].id, batches[-1].id) if batches else (None, None)
    return schema.BatchList(data=batches, first_id=ends[0], last_id=ends[1], has_more=page.has_more)


@router.get("/v1/batches/{batch_id}", summary="Look at a batch", responses=error_responses(401, 404, 503))
async def retrieve_batch(batch_id: str, gateway: AskingGateway, caller: Asker) -> schema.Batch:
    """Say how far a batch is."""
    return _shown(await gateway.batches.ledger.find(batch_id, caller.name))


@router.post("/v1/batches/{batch_id}/cancel", summary="Cancel a batch", responses=error_responses(400, 401, 404, 503))
async def cancel_batch(batch_id: str, gateway: AskingGateway, caller: Asker) -> schema.Batch:
    """Cancel what is under way; the answers so far are in the output file."""
    batch = await gateway.batches.ledger.cancel(await gateway.batches.ledger.find(batch_id, caller.name))
    gateway.batches.runner.poke()
    return _shown(batch)


def _shown(batch: StoredBatch) -> schema.Batch:
    return schema.Batch(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model or None,
        errors=_errors(batch),
        input_file_id=batch.input_file_id,
        status=batch.status,
        output_file_id=batch.output_file_id if batch.status.is_end and batch.completed else None,
        error_file_id=batch.error_file_id if batch.status.is_end and batch.failed else None,
        created_at=batch.created_s,
        in_progress_at=batch.in_progress_s or None,
        expires_at=batch.expires_s,
        finalizing_at=batch.finalizing_s or None,
        completed_at=batch.completed_s or None,
        failed_at=batch.failed_s or None,
        expired_at=batch.expired_s or None,
        cancelling_at=batch.cancelling_s or None,
        cancelled_at=batch.cancelled_s or None,
        request_counts=schema.RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        usage=_usage(batch),
        metadata=msgspec.json.decode(batch.metadata) if batch.metadata else None,
    )


def _errors(batch: StoredBatch) -> schema.BatchErrors | None:
    if not batch.faults:
        return None
    faults = msgspec.json.decode(batch.faults, type=list[InputFault])
    return schema.BatchErrors(data=[schema.BatchError(**msgspec.structs.asdict(fault)) for fault in faults])


def _usage(batch: StoredBatch) -> schema.BatchUsage:
    return schema.BatchUsage(
        input_tokens=batch.prompt_tokens,
        input_tokens_details=schema.InputTokensDetails(cached_tokens=batch.cached_tokens),
        output_tokens=batch.completion_tokens,
        output_tokens_details=schema.OutputTokensDetails(),
        total_tokens=batch.prompt_tokens + batch.completion_tokens,
    )
