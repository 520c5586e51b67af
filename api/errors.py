"""How errors look over HTTP: the only place that knows a status code, and the only translator."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.schema.response import ErrorBody, ErrorDetail
from shared.errors import ErrorCode, InternalError, InvalidRequest, JobError, ModelUnavailable, TooMuch

_REQUEST = "invalid_request_error"
_SERVER = "server_error"
CLIENT_CLOSED_REQUEST = 499
"""As nginx has it: it is over because the client wished so."""
MAX_NAME_LENGTH = 200
_HTTP_CODES = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}
"""What HTTP itself refuses, in OpenAI's words."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """What a client sees of an error, beside its message."""

    status: int
    type: str
    headers: Mapping[str, str] = field(default_factory=dict)


PRESENTATIONS: Mapping[ErrorCode, Presentation] = {
    ErrorCode.INVALID_REQUEST: Presentation(400, _REQUEST),
    ErrorCode.INVALID_MEDIA: Presentation(400, _REQUEST),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Presentation(400, _REQUEST),
    ErrorCode.MODEL_NOT_FOUND: Presentation(404, _REQUEST),
    ErrorCode.COMPLETION_NOT_FOUND: Presentation(404, _REQUEST),
    ErrorCode.FILE_NOT_FOUND: Presentation(404, _REQUEST),
    ErrorCode.BATCH_NOT_FOUND: Presentation(404, _REQUEST),
    ErrorCode.INVALID_API_KEY: Presentation(401, _REQUEST, {"WWW-Authenticate": "Bearer"}),
    ErrorCode.QUEUE_FULL: Presentation(429, "rate_limit_error"),
    ErrorCode.RATE_LIMIT_EXCEEDED: Presentation(429, "rate_limit_error"),
    ErrorCode.PERMISSION_DENIED: Presentation(403, _REQUEST),
    ErrorCode.MODEL_UNAVAILABLE: Presentation(503, _SERVER, {"Retry-After": "2"}),
    ErrorCode.CANCELLED: Presentation(CLIENT_CLOSED_REQUEST, _REQUEST, {"x-should-retry": "false"}),
    ErrorCode.DEADLINE_EXCEEDED: Presentation(504, _SERVER),
    ErrorCode.WORKER_LOST: Presentation(500, _SERVER, {"x-should-retry": "false"}),
    ErrorCode.OUT_OF_MEMORY: Presentation(500, _SERVER, {"x-should-retry": "false"}),
    ErrorCode.SERVER_STOPPING: Presentation(503, _SERVER, {"Retry-After": "1"}),
    ErrorCode.STREAM_INTERRUPTED: Presentation(502, _SERVER),
    ErrorCode.INTERNAL_ERROR: Presentation(500, _SERVER),
}
"""`x-should-retry` keeps OpenAI's clients from sending again a request that took its workers down or fits into none, or
that was cancelled."""


def error_body(error: JobError) -> bytes:
    """The error as JSON; the body of a response, or the last frame of a stream."""
    return _body(error.message, PRESENTATIONS[error.code].type, error.param, error.code)


def error_response(error: JobError) -> Response:
    """The error as a response of its own."""
    shown = PRESENTATIONS[error.code]
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, TooMuch) else shown.headers
    return _response(shown.status, error_body(error), headers)


def translate_errors(app: FastAPI) -> None:
    """Translate every exception that reaches the edge."""
    app.add_exception_handler(JobError, _on_job_error)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_parameter)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


async def _on_job_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, JobError)
    return error_response(error)


async def _on_redis_error(request: Request, error: Exception) -> Response:
    return error_response(ModelUnavailable("The server can't reach its queue now; please try again shortly."))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "invalid_request")
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _response(error.status_code, _body(message, _REQUEST, None, code), error.headers or {})


async def _on_wrong_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    name = str(wrong["loc"][-1])[:MAX_NAME_LENGTH]
    return error_response(InvalidRequest(f"Invalid {name}: {wrong['msg']}.", param=name))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_bug(request: Request, error: Exception) -> Response:
    return error_response(InternalError())


def _body(message: str, type_: str, param: str | None, code: str) -> bytes:
    return ErrorBody(error=ErrorDetail(message=message, type=type_, param=param, code=code)).model_dump_json().encode()


def _response(status: int, body: bytes, headers: Mapping[str, str]) -> Response:
    return Response(body, status, headers=dict(headers), media_type="application/json")
