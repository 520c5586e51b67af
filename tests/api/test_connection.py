"""The wire: https, slow and talkative clients, pages of other origins."""

import asyncio
import ssl
import subprocess
import sys

import httpx2
import pytest
import trustme
from openai import AsyncOpenAI

from tests.api.conftest import MODEL

RECEIVE_S = 3
GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate for 127.0.0.1, in files, and whom to trust for it."""
    folder, root = tmp_path_factory.mktemp("tls"), trustme.CA()
    certificate = root.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    return root, folder


async def test_official_client_talks_over_tls(gateways, authority, worker):
    root, folder = authority
    gateway = gateways(ssl_certfile=folder / "cert.pem", ssl_keyfile=folder / "key.pem")
    trusting = ssl.create_default_context()
    root.configure_trust(trusting)
    url = gateway.url.replace("http:", "https:")

    async with (
        httpx2.AsyncClient(base_url=url, verify=trusting, trust_env=False) as http,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http) as client,
    ):
        assert MODEL in [model.id for model in (await client.models.list()).data]

    async with httpx2.AsyncClient(base_url=url, trust_env=False) as stranger:
        with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
            await stranger.get("/health/live")
    with pytest.raises(httpx2.RemoteProtocolError):
        await httpx2.AsyncClient(trust_env=False).get(gateway.url + "/health/live")


async def test_tls_older_than_1_2_is_refused(gateways, authority):
    gateway = gateways(ssl_certfile=authority[1] / "cert.pem", ssl_keyfile=authority[1] / "key.pem")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", gateway.port, ssl=old)


def test_key_without_a_certificate_is_refused(authority):
    arguments = [sys.executable, "-m", "api", f"--ssl_keyfile={authority[1] / 'key.pem'}"]

    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 2
    assert "--ssl_keyfile needs --ssl_certfile" in ended.stderr


async def said_to(gateway, *pieces: bytes) -> bytes:
    """All that the gateway answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(30):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("pieces", "num_answers"),
    [
        ((), 0),
        ((b"GET /health/live HT",), 0),
        ((GET, b"x-a: 1\r\n"), 0),
        ((b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n", b"{"), 0),
        ((GET + b"\r\n", GET), 1),
    ],
)
async def test_client_that_never_ends_its_request_is_left(gateways, pieces, num_answers):
    answer = await said_to(gateways(receive_timeout_s=RECEIVE_S), *pieces)

    assert answer.count(b"HTTP/1.1 200") == num_answers


async def test_slow_answer_is_not_cut_by_the_time_for_requests(gateways, worker):
    gateway = gateways(receive_timeout_s=RECEIVE_S)
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        asked = asyncio.ensure_future(
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        )
        job = await worker.take()
        await asyncio.sleep(1.5 * RECEIVE_S)
        await worker.say(job, "late")
        await worker.finish(job)

        assert (await asked).choices[0].message.content == "late"


@pytest.mark.parametrize(
    "pieces",
    [
        (GET + b"x-a: " + b"a" * 40_000 + b"\r\n\r\n",),
        (GET + b"".join(b"x-%d: a\r\n" % i for i in range(8000)) + b"\r\n",),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n",),
        (GET, b"x-a: " + b"a" * 20_000, b"a" * 20_000),
        (GET + b"x-a: " + b"a" * 40_000,),
        (GET + b"\r\n" + GET + b"x-a: " + b"a" * 40_000 + b"\r\n\r\n",),
    ],
)
async def test_head_that_is_too_large_is_refused(gateway, pieces):
    answer = await said_to(gateway, *pieces)

    assert b"HTTP/1.1 431" in answer


async def test_large_body_after_a_small_head_is_no_large_head(gateway):
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", content=b" " * 10**6)

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"\r\n" * 99,
    ],
)
async def test_bytes_that_are_no_http_end_the_connection_only(gateways, garbage):
    gateway = gateways(receive_timeout_s=RECEIVE_S)

    answer = await said_to(gateway, garbage)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (await said_to(gateway, GET + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_other_origins_may_call_only_where_they_are_named(gateways, gateway):
    asked = {"Origin": "https://chat.example.com", "Access-Control-Request-Method": "POST"}
    named = gateways(cors_origins="https://chat.example.com", api_key="secret")
    async with httpx2.AsyncClient(trust_env=False) as http:
        closed = await http.options(f"{gateway.url}/v1/chat/completions", headers=asked)
        opened = await http.options(f"{named.url}/v1/chat/completions", headers=asked)
        other = await http.options(
            f"{named.url}/v1/chat/completions", headers=asked | {"Origin": "https://evil.example.com"}
        )
        refused = await http.get(f"{named.url}/v1/models", headers=asked)

    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://chat.example.com"
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-credentials" not in opened.headers
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://chat.example.com"


async def test_documentation_is_one_page_that_loads_nothing(gateway):
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as http:
        page, document = await http.get("/docs"), (await http.get("/openapi.json")).json()

    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "src=" not in page.text
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
        assert path in page.text
    body = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert "temperature" in page.text
    assert body["messages"]["description"]
