"""The gateway as a process: what it loads, how it starts without Redis, and how it stops."""

import asyncio
import signal
import subprocess
import sys

import httpx2

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


async def test_answer_that_outlasts_the_drain_is_cancelled(redis_server, worker):
    gateway = GatewayProcess(redis_server.url, drain_timeout_s=1)
    async with connect(gateway) as client, worker.hearing_cancels() as next_cancel:
        await until(lambda: served(client))
        async with asking(client.chat.completions.create(model=MODEL, messages=HI)):
            job = await worker.take()
            gateway.process.send_signal(signal.SIGTERM)

            assert await next_cancel() == job.id
    assert await asyncio.to_thread(gateway.process.wait, 10) == 0


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


async def refuses_connections(gateway: GatewayProcess) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    except OSError:
        return True
    writer.close()
    await writer.wait_closed()
    return False
