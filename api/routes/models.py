"""GET /v1/models."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.gateway import Gateway, gateway_of
from api.schema.response import ModelCard, ModelList

router = APIRouter()


@router.get("/v1/models")
async def list_models(gateway: Annotated[Gateway, Depends(gateway_of)]) -> ModelList:
    """List the models that can be asked now."""
    workers = sorted((await gateway.registry.fleet()).ready(), key=lambda worker: (worker.model, -worker.started_s))
    oldest = {worker.model: worker for worker in workers}
    return ModelList(
        data=[
            ModelCard(id=worker.model, created=int(worker.started_s), is_multimodal=bool(worker.modalities))
            for worker in oldest.values()
        ]
    )
