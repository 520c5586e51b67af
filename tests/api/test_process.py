"""The gateway as a process: what it loads, how it starts without Redis, and how it stops."""

import asyncio
import signal
import subprocess
import sys

import httpx2
import pytest
from openai import APIError, InternalServerError

from api.server import KILLED_STATUS
from baton.embedded import free_port
from tests.api.conftest import MODEL, GatewayProcess, asking, connect, served, until

HI = [{"role": "user", "content": "hi"}]


def test_gateway_needs_no_model_libraries():
    names = "torch", "transformers", "peft", "PIL", "numpy", "worker"
    program = f"import sys, api.app; sys.exit(' '.join(set({names!r}) & set(sys.modules)) or None)"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).stderr == b""


async def test_running_stream_ends_well_after_sigterm(redis_server, worker):
    gateway = GatewayProcess(redis_server.url)
    async with connect(gateway) as client:
        await until(lambda: served(client))
        async with asking(client.chat.completions.create(model=MODEL, messages=HI, stream=True)) as answer:
            job = await worker.take()
            await worker.say(job, "before ")
            async with await answer as stream:
                texts = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
                gateway.process.send_signal(signal.SIGTERM)
                await until(lambda: refuses_connections(gateway))
                await worker.say(job, "after")
                await worker.finish(job)
                texts += [chunk.choices[0].delta.content async for chunk in stream]

    assert "".join(text or "" for text in texts) == "before after"
    assert await asyncio.to_thread(gateway.process.wait, 10) == 0


async def test_leaving_gateway_says_so_first_and_answers_until_that_is_known(redis_server, worker):
    gateway = GatewayProcess(redis_server.url, drain_notice_s=60)
    async with connect(gateway) as client, httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        await until(lambda: served(client))
        gateway.process.terminate()
        await until(lambda: is_draining(http))

        async with asking(client.chat.completions.create(model=MODEL, messages=HI)) as answer:
            await worker.answer("still ", "here")
            said = (await answer).choices[0].message.content
        gateway.process.terminate()
        status = await asyncio.to_thread(gateway.process.wait, 10)

    assert (said, status) == ("still here", 0)


async def test_plain_answer_that_outlasts_the_drain_is_an_error_and_cancelled(redis_server, worker):
    gateway = GatewayProcess(redis_server.url, drain_timeout_s=0.5)
    async with connect(gateway) as client, worker.hearing_cancels() as next_cancel:
        await until(lambda: served(client))
        async with asking(client.chat.completions.create(model=MODEL, messages=HI)) as answer:
            job = await worker.take()
            gateway.process.terminate()

            assert await next_cancel() == job.id
            with pytest.raises(InternalServerError) as refusal:
                await answer

    assert (refusal.value.status_code, refusal.value.code) == (503, "server_stopping")
    assert await asyncio.to_thread(gateway.process.wait, 10) == 0


@pytest.mark.parametrize("signals", [1, 2], ids=["after the drain", "in a hurry"])
async def test_stream_that_is_cut_off_says_so_and_goes_on_at_another_gateway(redis_server, gateway, worker, signals):
    leaving = GatewayProcess(redis_server.url, drain_timeout_s=0.5 if signals == 1 else 60)
    async with connect(leaving) as client, httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        await until(lambda: served(client))
        async with asking(client.chat.completions.create(model=MODEL, messages=HI, stream=True)) as answer:
            job = await worker.take()
            await worker.say(job, "before ")
            stream = await answer
            await anext(stream)
            leaving.process.send_signal(signal.SIGINT)
            if signals == 2:
                await until(lambda: refuses_connections(leaving))
                leaving.process.send_signal(signal.SIGINT)
            with pytest.raises(APIError, match="server is stopping"):
                [chunk async for chunk in stream]
        status = await asyncio.to_thread(leaving.process.wait, 10)
        await worker.say(job, "after")
        await worker.finish(job)
        rest = await http.get(f"/v1/chat/completions/{job.id}/events", headers={"Last-Event-ID": "2"})

    assert status == 0
    assert '"content":"after"' in rest.text
    assert rest.text.endswith("[DONE]\n\n")


async def test_third_signal_ends_the_gateway_at_once(redis_server, worker, broker):
    gateway = GatewayProcess(redis_server.url, drain_timeout_s=60)
    async with connect(gateway) as client:
        await until(lambda: served(client))
        async with asking(client.chat.completions.create(model=MODEL, messages=HI)) as answer:
            await worker.take()
            gateway.process.terminate()
            await until(lambda: refuses_connections(gateway))
            # The job's cancel can't be sent, and the gateway waits for it; what ends the pause is no write.
            await broker.client_pause(20_000, all=False)
            gateway.process.terminate()
            with pytest.raises(InternalServerError):
                await answer
            gateway.process.terminate()
            status = await asyncio.to_thread(gateway.process.wait, 10)
        await broker.client_unpause()

    assert status == KILLED_STATUS


async def test_gateway_without_redis_starts_and_says_so():
    gateway = GatewayProcess(f"redis://127.0.0.1:{free_port()}/0")
    try:
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:
            ready = await http.get("/health/ready")
            asked = await http.post("/v1/chat/completions", json={"model": MODEL, "messages": HI})
    finally:
        gateway.stop()

    assert (ready.status_code, ready.json()["reason"]) == (503, "Redis does not answer")
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "model_unavailable")


async def is_draining(http: httpx2.AsyncClient) -> bool:
    ready = await http.get("/health/ready")
    return (ready.status_code, ready.json().get("reason")) == (503, "draining")


async def refuses_connections(gateway: GatewayProcess) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    except OSError:
        return True
    writer.close()
    await writer.wait_closed()
    return False
