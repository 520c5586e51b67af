"""docs/api.md says what the code does, and of every field of OpenAI's what becomes of it."""

import re

import pytest
from openai.types import batch_create_params, completion_create_params, file_create_params
from openai.types.audio import transcription_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from tools.write_api_docs import PATH, write

OPENAI = {
    "POST /v1/chat/completions": chat_create_params.CompletionCreateParamsStreaming,
    "POST /v1/completions": completion_create_params.CompletionCreateParamsStreaming,
    "POST /v1/audio/transcriptions": transcription_create_params.TranscriptionCreateParamsStreaming,
    "POST /v1/responses": response_create_params.ResponseCreateParamsStreaming,
    "POST /v1/batches": batch_create_params.BatchCreateParams,
    "POST /v1/files": file_create_params.FileCreateParams,
}
PAGE = write()
SECTIONS = dict(re.findall(r"^## (\S+ \S+)$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_page_is_what_the_code_says_now():
    assert PATH.read_text() == PAGE, "run python -m tools.write_api_docs"


@pytest.mark.parametrize("route", [route for route in OPENAI if route in SECTIONS])
def test_every_field_of_openais_client_is_honoured_or_refused_by_name(route):
    told = set(re.findall(r"^\| `(\w+)`", SECTIONS[route], re.MULTILINE))

    assert len(OPENAI[route].__annotations__) >= 3
    assert OPENAI[route].__annotations__.keys() - told == set()


def test_every_route_has_its_section():
    listed = re.findall(r"^\| \[`(\S+ \S+)`\]", PAGE, re.MULTILINE)

    assert listed == [*SECTIONS]
    assert "POST /v1/chat/completions" in listed


@pytest.mark.parametrize("route", SECTIONS)
def test_no_field_of_a_request_goes_without_words(route):
    silent = re.findall(r"^\| `(\w+)`(?: \(needed\))? \| [^|]* \|  \|$", SECTIONS[route], re.MULTILINE)

    assert silent == []
