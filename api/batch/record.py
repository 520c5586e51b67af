"""What is known of a batch, as it lies in Redis."""

from enum import StrEnum

import msgspec


class BatchStatus(StrEnum):
    """How far a batch is; OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing happens any more."""
        return self in _ENDS


_ENDS = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class InputFault(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Why a batch failed before anything was asked."""

    code: str
    message: str
    line: int | None = None
    """Line of the input file, from 1 on."""
    param: str | None = None


class StoredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch; each field is one of its hash's, `<status>_s` when it got there."""

    id: str
    owner: str
    """The name of the API key on whose behalf its lines are asked."""
    endpoint: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    """Both are there once the batch has ended, if they have any line."""
    file_ttl_s: int
    """How long both live."""
    metadata: str = ""
    """A JSON object; empty is none."""
    created_s: int
    expires_s: int
    status: BatchStatus = BatchStatus.VALIDATING
    model: str = ""
    num_lines: int = 0
    """Lines of the input file, blank ones counted; known with `total`."""
    total: int = 0
    """Lines to be answered."""
    completed: int = 0
    failed: int = 0
    completed_bytes: int = 0
    failed_bytes: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    faults: str = ""
    """A JSON list of `InputFault`s; empty is none."""
    in_progress_s: int = 0
    finalizing_s: int = 0
    completed_s: int = 0
    failed_s: int = 0
    expired_s: int = 0
    cancelling_s: int = 0
    cancelled_s: int = 0
    """0 where it never got there."""

    @property
    def expires_files_s(self) -> int:
        """Unix time until which its answers live at most."""
        return self.expires_s + self.file_ttl_s
