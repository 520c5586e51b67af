import json

import pytest

from api.completion import ChunkWriter, Heading
from api.errors import PRESENTATIONS
from api.schema.response import ChatCompletionChunk
from shared.errors import ErrorCode
from shared.events import Finished, FinishReason, Started, TextDelta, Usage
from shared.job import ChatJob, SamplingParams

JOB = ChatJob(
    id="chatcmpl-1",
    model='odd "|" \\ model',
    gateway="g",
    messages=(),
    sampling=SamplingParams(),
    created_s=1.7,
    deadline_s=2,
)
NAMED = {"job_id": JOB.id, "attempt": 1}


@pytest.mark.parametrize("text", ['"', "\\", "\n\r\x00\x1f", "早上好 🌍", "a\u2028b\u2029c\x85d", '"|"', " "])
@pytest.mark.parametrize("includes_usage", [False, True])
def test_chunk_written_by_hand_is_the_schemas_own(text, includes_usage):
    frame = ChunkWriter(Heading.of(JOB), includes_usage=includes_usage).frames(
        [TextDelta(**NAMED, seq=5, text=text, token_ids=())]
    )

    head, _, body = frame.decode().partition("\ndata: ")
    assert head == "id: 5"
    assert body.endswith("\n\n")
    assert len(body.splitlines()) == 2
    chunk = ChatCompletionChunk.model_validate_json(body)
    assert chunk.choices[0].delta.content == text
    assert json.loads(body) == json.loads(chunk.model_dump_json(exclude=None if includes_usage else {"usage"}))
    assert ("usage" in json.loads(body)) == includes_usage


def test_events_that_wait_together_leave_as_one_piece():
    usage = Usage(prompt_tokens=2, completion_tokens=1)
    events = [
        Started(**NAMED, seq=1, prompt_tokens=2, model="m", created_s=1.0),
        TextDelta(**NAMED, seq=2, text="", token_ids=(1,)),
        TextDelta(**NAMED, seq=3, text="x", token_ids=(2,)),
        Finished(**NAMED, seq=4, reason=FinishReason.STOP, usage=usage),
    ]

    frames = ChunkWriter(Heading.of(JOB), includes_usage=False).frames(events).decode().split("\n\n")

    assert [frame.splitlines()[0] for frame in frames if frame] == ["id: 1", "id: 3", "id: 4", "data: [DONE]"]


def test_every_error_code_has_a_status():
    assert set(PRESENTATIONS) == set(ErrorCode)
