"""`baton deploy`: everything that serves one model, on one machine, until one Ctrl-C."""

import asyncio
import ipaddress
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import SecretStr
from redis.exceptions import RedisError

from baton.curl import curl_command
from baton.deployment import DeployFailed, Deployment
from baton.embedded import EmbeddedRedis, RedisMissing
from baton.port import PortTaken, choose_port
from baton.race import race
from baton.screen import Screen
from baton.settings import DeploySettings
from baton.state import DirectoryTaken
from shared import keys
from shared.connection import open_redis
from shared.fleet import WorkerInfo

WATCH_S = 1.0
STOPPING = (
    "stopping once running answers ended; Ctrl-C again hurries",
    "handing over what still runs; Ctrl-C again kills",
    "killing what is left",
)
"""What each Ctrl-C does."""


def main() -> None:
    """Read the settings and serve until a signal; the exit status is 0 only if that is what ended it."""
    settings = DeploySettings.read()
    screen = Screen()
    try:
        port = choose_port(settings.host, settings.port, is_named="port" in settings.model_fields_set)
    except PortTaken as error:
        screen.say(f"baton deploy: {error}")
        sys.exit(2)
    if settings.port not in (port, 0):
        screen.say(f"port {settings.port} is taken; using {port}")
    directory = settings.directory_of_data(port)
    sys.exit(asyncio.run(_deploy(settings.model_copy(update={"port": port}), directory, screen)))


async def _deploy(settings: DeploySettings, directory: Path | None, screen: Screen) -> int:
    serving = asyncio.ensure_future(_serve(settings, directory, screen))
    steps = iter(STOPPING)

    def stop() -> None:
        screen.settle()
        screen.say(next(steps, STOPPING[-1]))
        serving.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    try:
        await serving
    except asyncio.CancelledError:
        return 0
    except (DeployFailed, DirectoryTaken, RedisMissing, RedisError) as error:
        screen.say(f"baton deploy: {error}")
    return 1


async def _serve(settings: DeploySettings, directory: Path | None, screen: Screen) -> None:
    if "redis_url" in settings.model_fields_set:
        await _serve_on(settings, screen)
        return
    with EmbeddedRedis(directory) as server:
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        if directory is not None:
            screen.say(f"files and batches are kept in {directory}")
            await _forget_adapters(settings)
        await race(_serve_on(settings, screen), _watch(server))


async def _serve_on(settings: DeploySettings, screen: Screen) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(settings))
        await redis.ping()
        deployment = Deployment(settings, redis, screen)
        stack.push_async_callback(deployment.stop)
        _greet(settings, deployment.url, await deployment.start())
        if not _is_loopback(settings.host) and not needs_key(settings):
            screen.say(f"warning: anyone who reaches {settings.host} can use this; --api_key asks for a key")
        await deployment.serve()


async def _forget_adapters(settings: DeploySettings) -> None:
    """Let the command line say again which adapters there are."""
    async with open_redis(settings) as redis:
        async for key in redis.scan_iter(match=keys.adapters("*")):
            await redis.delete(key)


async def _watch(server: EmbeddedRedis) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        if not server.is_alive:
            raise DeployFailed("the embedded Redis server ended by itself")


def _greet(settings: DeploySettings, url: str, workers: list[WorkerInfo]) -> None:
    served = " + ".join([workers[0].model, *workers[0].adapters])
    devices = ", ".join(sorted({worker.device for worker in workers}))
    lines = ["", f"{served} is ready at {url}/v1 (workers: {len(workers)}, device: {devices}). Ask it:", ""]
    if needs_key(settings):
        lines += ["export BATON_API_KEY=…  # the key that you chose"]
    lines += [curl_command(url, workers[0], needs_key=needs_key(settings)), "", "Ctrl-C ends it.", ""]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def needs_key(settings: DeploySettings) -> bool:
    """Whether clients have to send a key."""
    return settings.api_key is not None or settings.api_keys_file is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
