"""Why a job could not be done. Meaning lives here; the HTTP status is `api/errors.py`'s business.

JobError
├── InvalidRequest              the client can mend it; `param` names the field
│   ├── InvalidMedia            a picture, clip, recording or its address is unusable
│   ├── ContextLengthExceeded   prompt and answer do not fit (known only in the worker)
│   ├── ModelNotFound           nobody ever served a model of that name
│   ├── CompletionNotFound      nobody ever asked for that answer, or too long ago
│   ├── FileNotFound            the API key has no such file, or none any more
│   └── BatchNotFound           the API key has no such batch, or none any more
├── InvalidApiKey               missing or wrong key
├── TooMuch                     a limit is reached; it says which, and when to come back
│   ├── QueueFull               as many requests wait as may
│   └── RateLimited             the API key's own share is used up
├── PermissionDenied            the server is not set up to let clients ask for that
├── ModelUnavailable            the name is known, but no live worker serves it
├── Cancelled                   somebody with the same key asked for the answer's end
├── DeadlineExceeded            the answer took longer than the request may take
├── WorkerLost                  the job took its workers down and is not tried again
├── OutOfMemory                 the job does not fit into the device's memory, even alone
├── ServerStopping              the gateway ends before the answer does; another one can go on
├── StreamInterrupted           events are missing and the log no longer has them
└── InternalError               our fault; the cause is in the log only
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The closed set of outcomes that are not an answer; clients see these strings."""

    INVALID_REQUEST = "invalid_request"
    INVALID_MEDIA = "invalid_media"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    MODEL_NOT_FOUND = "model_not_found"
    COMPLETION_NOT_FOUND = "completion_not_found"
    FILE_NOT_FOUND = "file_not_found"
    BATCH_NOT_FOUND = "batch_not_found"
    INVALID_API_KEY = "invalid_api_key"
    QUEUE_FULL = "queue_full"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    PERMISSION_DENIED = "permission_denied"
    MODEL_UNAVAILABLE = "model_unavailable"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKER_LOST = "worker_lost"
    OUT_OF_MEMORY = "out_of_memory"
    SERVER_STOPPING = "server_stopping"
    STREAM_INTERRUPTED = "stream_interrupted"
    INTERNAL_ERROR = "internal_error"


class JobError(Exception):
    """Base of every error a client may see: a message in prose and the field it is about."""

    code: ErrorCode = ErrorCode.INTERNAL_ERROR

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(JobError):
    """The request can't be honoured as it stands."""

    code = ErrorCode.INVALID_REQUEST


class InvalidMedia(InvalidRequest):
    """A picture, clip or recording can't be fetched, read or decoded."""

    code = ErrorCode.INVALID_MEDIA


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the requested answer do not fit in the model's context."""

    code = ErrorCode.CONTEXT_LENGTH_EXCEEDED


class ModelNotFound(InvalidRequest):
    """No model of that name was ever served here."""

    code = ErrorCode.MODEL_NOT_FOUND


class CompletionNotFound(InvalidRequest):
    """No answer of that id is kept."""

    code = ErrorCode.COMPLETION_NOT_FOUND


class FileNotFound(InvalidRequest):
    """The API key has no file of that id."""

    code = ErrorCode.FILE_NOT_FOUND


class BatchNotFound(InvalidRequest):
    """The API key has no batch of that id."""

    code = ErrorCode.BATCH_NOT_FOUND


class InvalidApiKey(JobError):
    """The API key is missing or wrong."""

    code = ErrorCode.INVALID_API_KEY


class TooMuch(JobError):
    """A limit is reached; the same request may be accepted later."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class QueueFull(TooMuch):
    """As many requests wait, for the model or of the API key, as may."""

    code = ErrorCode.QUEUE_FULL


class RateLimited(TooMuch):
    """The API key has as many requests at once, or sent as many lately, as it may."""

    code = ErrorCode.RATE_LIMIT_EXCEEDED


class PermissionDenied(JobError):
    """The server is not set up to let anybody ask for that."""

    code = ErrorCode.PERMISSION_DENIED


class ModelUnavailable(JobError):
    """The model is known, but no live worker serves it now."""

    code = ErrorCode.MODEL_UNAVAILABLE


class Cancelled(JobError):
    """The answer was ended by a request for that; what was said of it before is all there is."""

    code = ErrorCode.CANCELLED


class DeadlineExceeded(JobError):
    """The answer was not finished within the time a request may take."""

    code = ErrorCode.DEADLINE_EXCEEDED


class WorkerLost(JobError):
    """Workers that took the job died or broke of it, as many as may."""

    code = ErrorCode.WORKER_LOST


class OutOfMemory(JobError):
    """The device has too little memory for this job, even if nothing else runs."""

    code = ErrorCode.OUT_OF_MEMORY


class ServerStopping(JobError):
    """The server at hand ends before the answer does."""

    code = ErrorCode.SERVER_STOPPING


class StreamInterrupted(JobError):
    """Part of the answer was lost on its way and can't be recovered."""

    code = ErrorCode.STREAM_INTERRUPTED


class InternalError(JobError):
    """Something broke on our side; the message says nothing of what."""

    code = ErrorCode.INTERNAL_ERROR

    def __init__(self) -> None:
        super().__init__("The server had an internal error; please try again.")


_CLASSES: dict[ErrorCode, type[JobError]] = {
    cls.code: cls
    for cls in (
        InvalidRequest,
        InvalidMedia,
        ContextLengthExceeded,
        ModelNotFound,
        CompletionNotFound,
        FileNotFound,
        BatchNotFound,
        InvalidApiKey,
        QueueFull,
        RateLimited,
        PermissionDenied,
        ModelUnavailable,
        Cancelled,
        DeadlineExceeded,
        WorkerLost,
        OutOfMemory,
        ServerStopping,
        StreamInterrupted,
    )
}


def job_error(code: ErrorCode, message: str, param: str | None = None) -> JobError:
    """Rebuild the error that crossed Redis as its three fields."""
    if code is ErrorCode.INTERNAL_ERROR:
        return InternalError()
    return _CLASSES[code](message, param=param)
