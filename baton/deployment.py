"""One gateway and its workers as processes: started, awaited, kept alive and stopped in order."""

import asyncio
import signal
from contextlib import suppress
from typing import NoReturn

import httpx2
from redis.asyncio import Redis

from api.settings import ApiSettings
from baton.child import Child
from baton.curl import base_url
from baton.fleet import local_workers, progress
from baton.pinning import pins
from baton.race import race
from baton.restart import keep_alive
from baton.screen import Screen
from baton.settings import DeploySettings, environment
from shared.fleet import WorkerInfo, WorkerState
from worker.settings import WorkerSettings

POLL_S = 0.1
WORKER_MARGIN_S = 5.0
"""What a worker may need beyond its drain time, if it has anything to drain, before it is killed."""
GATEWAY_GRACE_S = 5.0
HURRY_S = 5.0
"""What all of them may need when there is a hurry."""


class DeployFailed(Exception):
    """The deployment can't go on; the message says why."""


class Deployment:
    """Owns the processes between `start` and `stop`, which must be called whatever happened meanwhile."""

    def __init__(self, settings: DeploySettings, redis: Redis, screen: Screen) -> None:
        self._settings = settings
        self._redis = redis
        self._screen = screen
        self._is_serving = False
        self._gateway = Child("gateway", "api", environment(settings, ApiSettings), self._show)
        self._workers = [
            Child(f"worker {number}", "worker", _worker_environment(settings, number) | pin, self._show)
            for number, pin in enumerate(pins(settings.workers, is_spread=settings.device_map is not None))
        ]
        self.url = base_url(settings.host, settings.port, has_tls=settings.ssl_certfile is not None)

    async def start(self) -> list[WorkerInfo]:
        """Start everything and return, once it serves, what the workers say of themselves.

        Raises DeployFailed with the last lines of the first process that dies.
        """
        children = [self._gateway, *self._workers]
        for child in children:
            await child.start()
        workers = await race(self._wait_ready(), *(_die_early(child) for child in children))
        self._is_serving = True
        self._screen.settle()
        return workers

    async def serve(self) -> None:
        """Start what dies again; raise DeployFailed when that is no use any more."""
        workers = asyncio.gather(*(keep_alive(worker, self._screen.say) for worker in self._workers))
        await race(keep_alive(self._gateway, self._screen.say), workers)
        raise DeployFailed("nothing is left that could serve")

    async def stop(self) -> None:
        """Let open answers end and the workers drain; cancelled once, hurry them, and twice, kill them."""
        self._screen.settle()
        try:
            await self._drain()
        except asyncio.CancelledError:
            await self._hurry()
            raise
        finally:
            for child in (self._gateway, *self._workers):
                child.signal(signal.SIGKILL)

    async def _drain(self) -> None:
        self._gateway.signal(signal.SIGINT)  # no load balancer has to be told
        drain_s = self._settings.drain_timeout_s if self._is_serving else 0.0
        await asyncio.gather(*(worker.stop(drain_s + WORKER_MARGIN_S) for worker in self._workers))
        await self._gateway.stop(GATEWAY_GRACE_S)

    async def _hurry(self) -> None:
        """Say it again: workers then hand over what runs, and the gateway tells its clients."""
        children = (self._gateway, *self._workers)
        for child in children:
            child.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(child.wait() for child in children)), HURRY_S)

    async def _wait_ready(self) -> list[WorkerInfo]:
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False) as client:
            while True:
                known = await local_workers(self._redis)
                workers = [known[child.pid] for child in self._workers if child.pid in known]
                self._screen.progress(progress(workers, len(self._workers)))
                num_ready = sum(worker.state is WorkerState.READY for worker in workers)
                if num_ready == len(self._workers) and await _is_ready(client, workers[0].model):
                    return workers
                await asyncio.sleep(POLL_S)

    def _show(self, name: str, line: str) -> None:
        if self._is_serving:
            self._screen.say(f"{name} | {line}")


def _worker_environment(settings: DeploySettings, number: int) -> dict[str, str]:
    """Return a worker's settings; each has a port of its own for Prometheus, one after the other."""
    if settings.metrics_port:
        settings = settings.model_copy(update={"metrics_port": settings.metrics_port + number})
    return environment(settings, WorkerSettings)


async def _die_early(child: Child) -> NoReturn:
    ending = await child.wait()
    last_lines = "\n".join(f"  {line}" for line in child.last_lines)
    raise DeployFailed(f"{child.name} {ending} while starting; its last lines:\n{last_lines}")


async def _is_ready(gateway: httpx2.AsyncClient, model: str) -> bool:
    try:
        response = await gateway.get("/health/ready")
    except httpx2.TransportError:
        return False
    return response.is_success and model in response.json()["models"]
