"""A batch that takes longer than the life of what answers it, over plain HTTP."""

import json
import time
import urllib.request
from typing import Any

NUM_LINES = 300
NUM_TOKENS = 60
TIMEOUT_S = 300.0
_BOUNDARY = "batch-boundary"
_ENDPOINT = "/v1/chat/completions"


def start_batch(url: str) -> str:
    """Upload the lines and return the id of their batch."""
    lines = "\n".join(json.dumps(_line(number)) for number in range(NUM_LINES))
    form = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("purpose", "batch"), ('file"; filename="in.jsonl', lines))
    )
    body = f"{form}--{_BOUNDARY}--\r\n".encode()
    file = _ask(f"{url}/v1/files", body, f"multipart/form-data; boundary={_BOUNDARY}")
    asked = {"input_file_id": file["id"], "endpoint": _ENDPOINT, "completion_window": "24h"}
    batch_id: str = _ask(f"{url}/v1/batches", json.dumps(asked).encode())["id"]
    return batch_id


def wait_for_answers(url: str, batch_id: str, num_answers: int) -> Any:
    """Return the batch once it has so many answers, and has ended if that is all of them."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        batch = _ask(f"{url}/v1/batches/{batch_id}")
        if batch["status"] == "completed" or num_answers <= batch["request_counts"]["completed"] < NUM_LINES:
            return batch
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the batch is {batch['status']}, {batch['request_counts']}")
        time.sleep(0.2)


def has_every_answer_once(url: str, batch: Any) -> bool:
    """Whether the batch's output is what an undisturbed model says, line by line."""
    with urllib.request.urlopen(f"{url}/v1/files/{batch['output_file_id']}/content", timeout=60) as content:
        lines = [json.loads(line) for line in content.read().splitlines()]
    told = [(line["custom_id"], line["response"]["body"]["choices"][0]["message"]["content"]) for line in lines]
    return told == [(f"line {number}", _answer(number)) for number in range(NUM_LINES)]


def _line(number: int) -> dict[str, object]:
    messages = [{"role": "user", "content": f"line {number}"}]
    body = {"model": "fake", "messages": messages, "max_tokens": NUM_TOKENS}
    return {"custom_id": f"line {number}", "method": "POST", "url": _ENDPOINT, "body": body}


def _answer(number: int) -> str:
    return " ".join(("line", str(number))[n % 2] for n in range(NUM_TOKENS))


def _ask(url: str, body: bytes | None = None, content_type: str = "application/json") -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
