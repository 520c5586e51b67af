"""What clients and logs are never told: prompts, keys, paths and other people's requests."""

import base64
import re

import httpx2
import pytest

from shared import keys
from shared.errors import ErrorCode
from tests.api.conftest import MODEL, GatewayProcess, until

KEY, PROMPT, ADDRESS = "sk-very-secret-key", "my diagnosis is private", "http://127.0.0.1:9/private-picture.png"
TOLD = re.compile(r"Traceback|/root/|/home/|/usr/|site-packages|\.py\b|redis|127\.0\.0\.1|0x[0-9a-f]{6,}|" + KEY, re.I)
SAYING = [{"role": "user", "content": PROMPT}]
REFUSED = (
    ("POST", "/v1/chat/completions", {"model": "nobody", "messages": SAYING}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": []}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": SAYING, "temperature": "hot"}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": SAYING, "images": [ADDRESS]}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": SAYING, "images": ["file:///etc/passwd"]}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": SAYING, "images": ["data:;base64,!"]}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": SAYING, "audios": ["x"]}),
    ("POST", "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "b"}),
    ("GET", "/v1/chat/completions/chatcmpl-0/events", None),
    ("GET", "/v1/chat/completions/chatcmpl-0/events?include_usage=perhaps", None),
    ("POST", "/v1/chat/completions/chatcmpl-0/cancel", None),
    ("GET", "/v1/models/nobody", None),
    ("GET", "/nowhere", None),
    ("PUT", "/v1/models", None),
)


@pytest.fixture
def gateway(redis_server, capfd):
    """A gateway of this test's own, whose log it reads, and that says as much as it can."""
    gateway = GatewayProcess(
        redis_server.url, api_key=KEY, log_level="debug", allow_private_media_hosts="true", request_timeout_s=1
    )
    yield gateway
    gateway.stop()


async def test_errors_tell_nothing_of_the_machine_and_logs_nothing_of_the_prompt(gateway, worker, broker, capfd):
    said = []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:

        async def is_served() -> bool:
            return MODEL in (await http.get("/v1/models")).text

        await until(is_served)
        for method, path, body in REFUSED:
            answer = await http.request(method, path, json=body)
            assert answer.status_code >= 400
            said.append(answer.text)
        said.append((await http.post("/v1/chat/completions", headers={"Authorization": "Bearer wrong"})).text)
        said.append((await http.post("/v1/chat/completions", content=b"\xff" + PROMPT.encode())).text)
        said.append((await http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAYING})).text)
        assert "deadline_exceeded" in said[-1]
        await broker.set(keys.queue(MODEL), "of the wrong type")
        said.append((await http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAYING})).text)
        await broker.delete(keys.queue(MODEL))
        picture = {"images": ["data:;base64," + base64.b64encode(PROMPT.encode()).decode()]}
        await http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAYING} | picture)
    gateway.stop()
    logged = capfd.readouterr().err

    codes = {
        ErrorCode(re.search(r'"code":"(\w+)"', text)[1])
        for text in said
        if '"code":"unknown_url"' not in text and "method_not" not in text
    }
    assert len(codes) >= 7
    assert [text for text in said if TOLD.search(text) or PROMPT in text] == []
    assert "Application startup complete" in logged
    for secret in (KEY, PROMPT, "private-picture", base64.b64encode(PROMPT.encode()).decode()[:20]):
        assert secret not in logged
