"""/v1/files: what batches read and write."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from api.auth import caller_of
from api.batch.shelf import StoredFile
from api.document import error_responses, form_body
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.schema.file import FileDeleted, FileForm, FileList, FileObject

router = APIRouter()

UPLOAD_PATH = "/v1/files"
MAX_PAGE = 10_000

AskingGateway = Annotated[Gateway, Depends(gateway_of)]
Asker = Annotated[Caller, Depends(caller_of)]


@router.post(
    UPLOAD_PATH,
    summary="Upload a file",
    responses=error_responses(400, 401, 413, 503),
    openapi_extra=form_body(FileForm, {"file": "@requests.jsonl", "purpose": "batch"}),
)
async def create_file(request: Request, gateway: AskingGateway, caller: Asker) -> FileObject:
    """Store the requests of a batch, one a line; `expires_after[anchor]` and `expires_after[seconds]` say how long."""
    announced = request.headers.get("content-length", "")
    num_announced = int(announced) if announced.isdecimal() else 0
    content_type = request.headers.get("content-type", "")
    return _shown(await gateway.batches.uploads.receive(caller.name, content_type, num_announced, request.stream()))


@router.get("/v1/files", summary="List the files", responses=error_responses(400, 401, 503))
async def list_files(
    gateway: AskingGateway,
    caller: Asker,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    order: Literal["asc", "desc"] = "desc",
) -> FileList:
    """List the files of the API key, newest first unless asked otherwise."""
    page = await gateway.batches.shelf.page(caller.name, purpose, after, limit, is_newest_first=order == "desc")
    files = [_shown(file) for file in page.records]
    ends = (files[0].id, files[-1].id) if files else (None, None)
    return FileList(data=files, first_id=ends[0], last_id=ends[1], has_more=page.has_more)


@router.get("/v1/files/{file_id}", summary="Look at a file", responses=error_responses(401, 404, 503))
async def retrieve_file(file_id: str, gateway: AskingGateway, caller: Asker) -> FileObject:
    """Say what is known of a file."""
    return _shown(await gateway.batches.shelf.find(file_id, caller.name))


@router.get(
    "/v1/files/{file_id}/content",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}}, **error_responses(401, 404, 503)},
)
async def retrieve_file_content(file_id: str, gateway: AskingGateway, caller: Asker) -> StreamingResponse:
    """Send the bytes of a file."""
    file = await gateway.batches.shelf.find(file_id, caller.name)
    length = {"Content-Length": str(file.num_bytes)}  # a download that breaks off is then seen to
    return StreamingResponse(gateway.batches.shelf.read(file), headers=length, media_type="application/jsonl")


@router.delete("/v1/files/{file_id}", summary="Delete a file", responses=error_responses(400, 401, 404, 503))
async def delete_file(file_id: str, gateway: AskingGateway, caller: Asker) -> FileDeleted:
    """Forget a file, unless a batch still reads it."""
    file = await gateway.batches.shelf.find(file_id, caller.name)
    await gateway.batches.ledger.check_unread(file)
    await gateway.batches.shelf.delete(file)
    return FileDeleted(id=file.id)


def _shown(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.num_bytes,
        created_at=file.created_s,
        expires_at=file.expires_s,
        filename=file.filename,
        purpose=file.purpose,
    )
