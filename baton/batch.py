"""`baton batch`: a file of requests goes in, a file of answers comes out, and a person sees how far it is."""

import argparse
import os
import sys
import time
from pathlib import Path

import httpx2
import msgspec
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from baton.chat import API_KEY_VARIABLE, INTERRUPTED
from baton.client.endpoint import endpoint_of, plain_errors
from baton.client.reading import read_answer

POLL_S = 1.0
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class _Named(msgspec.Struct):
    id: str


class _Counts(msgspec.Struct):
    total: int
    completed: int
    failed: int


class _Fault(msgspec.Struct):
    message: str
    line: int | None = None


class _Faults(msgspec.Struct):
    data: list[_Fault]


class _Batch(msgspec.Struct):
    id: str
    status: str
    request_counts: _Counts
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Faults | None = None


def main() -> None:
    """Bring a batch to its end; the exit status is 0 if every line has an answer."""
    parser = _parser()
    given = parser.parse_args()
    if (given.input is None) is (given.batch_id is None):
        parser.error("name a file of requests, or the --batch_id of a batch to go on with")
    endpoint = endpoint_of(given.host, given.port, given.api_key, given.base_url)
    try:
        with plain_errors(endpoint), endpoint.open() as client:
            batch_id = given.batch_id or _start(client, given.input, given.endpoint)
            sys.exit(_finish(client, batch_id, given.output))
    except (OSError, ValueError) as error:
        sys.exit(f"baton batch: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _start(client: httpx2.Client, path: Path, endpoint: str) -> str:
    with path.open("rb") as requests:
        uploaded = client.post("files", data={"purpose": "batch"}, files={"file": (path.name, requests)})
    file = read_answer(uploaded.content, _Named, uploaded.status_code)
    asked = {"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h"}
    made = client.post("batches", json=asked)
    return read_answer(made.content, _Named, made.status_code).id


def _finish(client: httpx2.Client, batch_id: str, output: Path) -> int:
    again = f"baton batch --batch_id {batch_id} -o {output}"
    sys.stderr.write(f"Ctrl-C leaves the batch to itself; to go on with it: {again}\n")
    batch = _watch(client, batch_id)
    errors = output.with_suffix(".errors.jsonl")
    for file_id, path in ((batch.output_file_id, output), (batch.error_file_id, errors)):
        if file_id is not None:
            _download(client, file_id, path)
    for fault in batch.errors.data if batch.errors else ():
        sys.stderr.write(f"line {fault.line}: {fault.message}\n" if fault.line else f"{fault.message}\n")
    counts = batch.request_counts
    where = f", in {errors}" if batch.error_file_id else ""
    sys.stderr.write(f"{batch.status}: {counts.completed} answers, {counts.failed} without one{where}\n")
    return 0 if batch.status == "completed" and not counts.failed else 1


def _watch(client: httpx2.Client, batch_id: str) -> _Batch:
    """Show how far the batch is until it ends; a gateway that restarts meanwhile is waited for."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("validating", total=None)
        while True:
            try:
                found = client.get(f"batches/{batch_id}")
            except httpx2.TransportError:
                progress.update(task, description="no answer from the server")
            else:
                batch = read_answer(found.content, _Batch, found.status_code)
                counts = batch.request_counts
                done = counts.completed + counts.failed
                progress.update(task, description=batch.status, completed=done, total=counts.total or None)
                if batch.status in ENDED:
                    return batch
            time.sleep(POLL_S)


def _download(client: httpx2.Client, file_id: str, path: Path) -> None:
    with client.stream("GET", f"files/{file_id}/content") as answer:
        if not answer.is_success:
            read_answer(answer.read(), _Named, answer.status_code)
        with path.open("wb") as written:
            for chunk in answer.iter_bytes():
                written.write(chunk)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Have a file of requests answered.", allow_abbrev=False)
    parser.add_argument("input", nargs="?", type=Path, metavar="INPUT", help="JSON lines, as docs/batches.md has them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the answers go")
    parser.add_argument("--batch_id", help="go on with a batch that was left, in place of a file")
    parser.add_argument("--endpoint", default="/v1/chat/completions", help="what every line asks")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, help="[8000]")
    parser.add_argument("--base_url", help="both in one, as http://127.0.0.1:8000/v1")
    parser.add_argument("--api_key", default=os.environ.get(API_KEY_VARIABLE), help=f"or {API_KEY_VARIABLE}")
    return parser
