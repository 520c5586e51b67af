"""What becomes of a batch's lines, written into its two files: each once, through any loss of Redis."""

import time
from functools import partial

import msgspec

from api.batch.hold import Hold, Holds, Verdict
from api.batch.lines import Line
from api.batch.patience import patiently
from api.batch.question import Questions, Reply
from api.batch.record import BatchStatus, StoredBatch
from api.batch.shelf import FileShelf, StoredFile
from api.completion import on_one_line
from api.metrics import GatewayMetrics
from api.schema.batch import LineError, LineResponse, OutputLine
from shared.events import Usage

UNASKED = {
    BatchStatus.EXPIRED: LineError("batch_expired", "The batch's completion window ended before this line's answer."),
    BatchStatus.CANCELLED: LineError("batch_cancelled", "The batch was cancelled before this line's answer."),
}
"""What is said of lines that a batch never got to."""


class Results:
    """Written under a hold; raises LeaseLost once that is lost."""

    def __init__(self, holds: Holds, hold: Hold, batch: StoredBatch, metrics: GatewayMetrics) -> None:
        self._holds = holds
        self._hold = hold
        self._batch = batch
        self._metrics = metrics

    async def answer(self, line: Line, reply: Reply) -> None:
        """Write what the endpoint said; whatever is no answer goes into the error file."""
        request_id = f"req_{Questions.digest(self._batch.id, line.number)}"
        response = LineResponse(reply.status, request_id, msgspec.Raw(reply.body))
        verdict = Verdict.COMPLETED if reply.is_answer else Verdict.FAILED
        await self._write(line, verdict, response, None, reply.usage)

    async def omit(self, line: Line, status: BatchStatus) -> None:
        """Write that the line was not asked, because the batch ended like that."""
        await self._write(line, Verdict.FAILED, None, UNASKED[status], None)

    async def _write(
        self,
        line: Line,
        verdict: Verdict,
        response: LineResponse | None,
        error: LineError | None,
        usage: Usage | None,
    ) -> None:
        line_id = f"batch_req_{Questions.digest(self._batch.id, line.number)}"
        written = on_one_line(msgspec.json.encode(OutputLine(line_id, line.custom_id, response, error)))
        await patiently(
            partial(self._holds.record, self._hold, self._batch, line.number, written + b"\n", verdict, usage)
        )
        self._metrics.batch_lines.labels(verdict).inc()


async def publish(shelf: FileShelf, batch: StoredBatch) -> None:
    """Let the files be seen that have any line."""
    for kind, file_id, num_bytes in (
        ("output", batch.output_file_id, batch.completed_bytes),
        ("error", batch.error_file_id, batch.failed_bytes),
    ):
        if num_bytes:
            await shelf.complete(_file(batch, f"{batch.id}_{kind}.jsonl", file_id, num_bytes))


def _file(batch: StoredBatch, filename: str, file_id: str, num_bytes: int) -> StoredFile:
    """Describe a file whose pieces are numbered as the input's lines are."""
    now_s = int(time.time())
    return StoredFile(
        id=file_id,
        owner=batch.owner,
        filename=filename,
        purpose="batch_output",
        num_bytes=num_bytes,
        num_pieces=batch.num_lines + 1,
        created_s=now_s,
        expires_s=now_s + batch.file_ttl_s,
    )
