"""Other people's clients, as they are installed: a chat about a picture, plain and streamed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import MODEL
from tests.acceptance.test_chat import ask, data_uri, picture, text
from tests.cases import INTERNVL2

pytestmark = pytest.mark.timeout(900)  # whoever comes first starts the worker

ROOT = Path(__file__).parents[2]
CLIENTS = {
    "langchain": Path(sys.executable),
    "litellm": ROOT / "build" / "litellm" / "bin" / "python",
}
"""The Python that has each; LiteLLM's is made by `make test`, because it goes with none of ours."""


@pytest.fixture(scope="module")
def expected(client, media_url):
    return ask(client, picture(media_url), text("What is this?"), temperature=0)


@pytest.mark.parametrize("name", CLIENTS)
def test_client_gets_the_same_answer_whole_and_streamed(stack, expected, media_url, name):
    if not CLIENTS[name].exists():
        pytest.skip("make build/litellm/installed")
    script = ROOT / "tests" / "clients" / f"{name}_chat.py"
    asked = [str(CLIENTS[name]), str(script), f"{stack.url}/v1", MODEL, f"{media_url}/photo.jpg"]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "PYTHONPATH": ""}

    found = subprocess.run(asked, env=os.environ | quiet, capture_output=True, text=True, timeout=400, check=False)

    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["plain"] == told["streamed"] == expected
    plain, streamed = told["usage"]
    assert plain["input_tokens"] == streamed["input_tokens"] > 150
    assert plain["output_tokens"] == streamed["output_tokens"]


OPEN_WEBUI = {
    "stream": True,
    "model": MODEL,
    "temperature": 0,
    "max_tokens": 12,
    "top_p": 0.9,
    "frequency_penalty": 0,
    "seed": 7,
    "stop": ["<stop>"],
    "logit_bias": {},
    "stream_options": {"include_usage": True},
    "metadata": {"chat_id": "8a2c", "session_id": "tS9W", "task": "title_generation"},
}
"""What Open WebUI sends with its advanced parameters set, without the messages."""


def test_open_webui_lists_the_models_and_streams_a_chat(stack):
    """It asks for the list first; pictures come as data: URIs behind the words."""
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": data_uri(INTERNVL2 / "media" / "photo.jpg")}},
    ]
    body = OPEN_WEBUI | {"messages": [{"role": "user", "content": content}]}
    headers = {"Authorization": "Bearer sk-none", "X-OpenWebUI-User-Name": "Ann"}

    models = httpx2.get(f"{stack.url}/v1/models", headers=headers).json()["data"]
    answer = httpx2.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers, timeout=60)

    frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(frame) for frame in frames[:-1]]
    assert {model["id"] for model in models} >= {MODEL}
    assert all({"id", "object", "created", "owned_by"} <= model.keys() for model in models)
    assert frames[-1] == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["total_tokens"] > 150
