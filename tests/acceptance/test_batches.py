"""Batches through the whole walk: many lines, and lines with pictures and clips."""

import json
import time

import pytest

from tests.acceptance.conftest import MODEL
from tests.acceptance.test_golden import CASES, HONEST, request_of

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

ENDPOINT = "/v1/chat/completions"
NUM_LINES = 200


def answer_all(client, bodies: dict[str, dict]):
    """Return the batch at its end, its answers' bodies and its errors by custom id."""
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}, ensure_ascii=False)
        for name, body in bodies.items()
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    while batch.status in {"validating", "in_progress", "finalizing"}:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch, bodies_of(client, batch.output_file_id), bodies_of(client, batch.error_file_id)


def bodies_of(client, file_id: str | None) -> dict[str, dict]:
    lines = client.files.content(file_id).text.splitlines() if file_id else []
    found = [json.loads(line) for line in lines]
    assert len({line["id"] for line in found}) == len(found)
    return {line["custom_id"]: line["response"]["body"] for line in found}


def text_of(body: dict) -> str:
    return body["choices"][0]["message"]["content"]


def test_two_hundred_lines_are_answered_in_their_order(new_stack):
    stack = new_stack()
    stack.start_gateway()
    stack.start("worker", "--model_type", "fake", "--fake_itl_ms", "1")
    stack.wait_for_models("fake")
    bodies = {
        f"line {n}": {"model": "fake", "messages": [{"role": "user", "content": f"a b {n}"}], "max_tokens": 3}
        for n in range(NUM_LINES)
    }

    batch, answers, errors = answer_all(stack.client(), bodies)

    assert (batch.status, batch.model, errors) == ("completed", "fake", {})
    assert batch.request_counts.model_dump() == {"total": NUM_LINES, "completed": NUM_LINES, "failed": 0}
    assert batch.usage.output_tokens == 3 * NUM_LINES
    assert [(name, text_of(body)) for name, body in answers.items()] == [
        (f"line {n}", f"a b {n}") for n in range(NUM_LINES)
    ]


def test_lines_with_pictures_and_clips_are_answered_as_requests_are(client, media_url):
    cases = {name: CASES[name] for name in HONEST if CASES[name].facts["adapter"] is None}
    bodies = {name: plain_body(request_of(case, media_url)) for name, case in cases.items()}
    bodies["nowhere"] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "images": [f"{media_url}/no"]}

    batch, answers, errors = answer_all(client, bodies)

    assert batch.status == "completed"
    assert {name: text_of(body) for name, body in answers.items()} == {
        name: case.facts["greedy_text"] for name, case in cases.items()
    }
    assert [(name, body["error"]["code"]) for name, body in errors.items()] == [("nowhere", "invalid_media")]


def plain_body(given: dict[str, object]) -> dict[str, object]:
    """The body that the client would make of these arguments."""
    extra = given.pop("extra_body")
    assert isinstance(extra, dict)
    return given | extra
