"""POST /v1/audio/transcriptions."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import UploadFile

from api.completion import failure, fold
from api.document import error_responses, form_body
from api.gateway import Gateway, gateway_of
from api.order import Order
from api.relay import ChatStream, while_connected
from api.routes.chat import STREAM
from api.schema.transcription import Transcription, TranscriptionRequest, read_form
from api.transcript import TranscriptWriter, about_file, check_hears, conversation, transcription
from api.validation import check_model
from api.visit import enter_job, visit_of
from shared.errors import InvalidMedia, InvalidRequest
from shared.events import Failed

router = APIRouter()

EXAMPLE = {"model": "qwen2-audio-7b-instruct", "file": "@speech.mp3", "language": "en"}
MAX_FIELDS = 32
MAX_FIELD_BYTES = 2**16


@router.post(
    "/v1/audio/transcriptions",
    summary="Write down what was said",
    response_model=Transcription,
    response_description="What was said; with `stream` as server-sent events, with `response_format` text as text.",
    responses={
        200: {"content": {**STREAM["content"], "text/plain": {"schema": {"type": "string"}}}},
        **error_responses(400, 401, 403, 404, 413, 429, 500, 502, 503, 504),
    },
    openapi_extra=form_body(TranscriptionRequest, EXAMPLE),
)
async def create_transcription(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Ask an audio model for the words of a recording, in its authors' words for that.

    The form's `file` is a recording in any format that chats take, under the same limits.
    """
    asked, recording = await _read(request)
    try:
        return await _answer(request, gateway, asked, recording)
    except InvalidRequest as error:
        raise about_file(error) from None


async def _answer(request: Request, gateway: Gateway, asked: TranscriptionRequest, recording: bytes) -> Response:
    visit = visit_of(request)
    check_model(asked.model, visit.caller)
    worker = await gateway.registry.find(asked.model)
    check_hears(worker)
    chat = await asyncio.to_thread(conversation, asked, recording, worker)
    order = await while_connected(request, gateway.intake.accept(chat, visit))
    enter_job(visit, order.job.id)
    answer = _streamed(gateway, order) if asked.stream else _whole(gateway, order, asked)
    return await while_connected(request, answer)


async def _read(request: Request) -> tuple[TranscriptionRequest, bytes]:
    """Return the form, or raise InvalidRequest that names the first field that is wrong."""
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
        fields: dict[str, Any] = dict(form.multi_items())
        file = fields.pop("file", None)
        asked = read_form(fields)
        if not isinstance(file, UploadFile):
            raise InvalidRequest("Missing field: file; send the recording as a file of a multipart form.", param="file")
        recording = await file.read()
    if not recording:
        raise InvalidMedia("The recording is empty.", param="file")
    return asked, recording


async def _whole(gateway: Gateway, order: Order, asked: TranscriptionRequest) -> Response:
    async with aclosing(gateway.dispatcher.stream(order)) as batches:
        answer = transcription(await fold(order.job, batches))
    if asked.response_format == "text":
        return Response(answer.text, media_type="text/plain; charset=utf-8")
    return Response(answer.model_dump_json(), media_type="application/json")


async def _streamed(gateway: Gateway, order: Order) -> Response:
    batches = gateway.dispatcher.stream(order, gateway.settings.first_event_wait_s)
    first = await anext(batches)
    if first and isinstance(first[0], Failed):
        await batches.aclose()
        raise failure(first[0])
    return ChatStream(TranscriptWriter(), first, batches, gateway.settings.keep_alive_s)
