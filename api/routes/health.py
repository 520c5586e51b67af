"""GET /health/live and /health/ready: open to everyone, for whoever starts and watches the process."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError

from api.gateway import Gateway, gateway_of
from api.registry import Fleet
from shared.fleet import WorkerState

router = APIRouter(prefix="/health")


@router.get("/live", summary="Is the process alive")
async def live() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "live", "version": version("baton")}


@router.get(
    "/ready", summary="Would a request be answered", responses={503: {"description": "No; `reason` says why not."}}
)
async def ready(gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Say whether a request would be answered now, and if not, why."""
    if gateway.departure.is_announced:
        return _not_ready("draining")
    try:
        await gateway.redis.ping()
        fleet = await gateway.registry.fleet()
    except RedisError:
        return _not_ready("Redis does not answer")
    if not fleet.ready():
        return _not_ready(_reason(fleet))
    return JSONResponse({"status": "ready", "models": sorted({worker.model for worker in fleet.ready()})})


def _not_ready(reason: str) -> Response:
    return JSONResponse({"status": "not ready", "reason": reason}, 503)


def _reason(fleet: Fleet) -> str:
    loading = sorted({worker.model for worker in fleet.live if worker.state is WorkerState.LOADING})
    return f"loading {', '.join(loading)}" if loading else "no live worker"
