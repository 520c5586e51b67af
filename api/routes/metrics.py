"""GET /metrics: what Prometheus scrapes, open to whoever reaches the port."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import PlainTextResponse
from redis.exceptions import RedisError

from api.gateway import Gateway, gateway_of
from shared import keys

router = APIRouter()


@router.get(
    "/metrics",
    summary="What Prometheus scrapes",
    response_class=PlainTextResponse,
    responses={200: {"content": {"application/openmetrics-text": {"schema": {"type": "string"}}}}},
)
async def metrics(gateway: Annotated[Gateway, Depends(gateway_of)], accept: Annotated[str, Header()] = "") -> Response:
    """Expose the gateway's counters, and the lengths of the queues as Redis has them now."""
    try:
        gateway.metrics.show_waiting(await _queue_lengths(gateway))
    except RedisError:  # its own counters still are worth a look
        gateway.metrics.show_waiting([])
    page, content_type = gateway.metrics.expose(accept)
    return Response(page, media_type=content_type)


async def _queue_lengths(gateway: Gateway) -> list[tuple[str, int]]:
    fleet = await gateway.registry.fleet()
    models = sorted({worker.model for worker in fleet.live})
    async with gateway.redis.pipeline(transaction=False) as pipeline:
        for model in models:
            pipeline.zcard(keys.queue(model))
        return list(zip(models, await pipeline.execute(), strict=True))
