"""GET /v1/models."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import caller_of
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.schema.response import ModelCard, ModelList
from shared.fleet import WorkerInfo

router = APIRouter()


@router.get("/v1/models", summary="List the models", responses=error_responses(401, 503))
async def list_models(
    gateway: Annotated[Gateway, Depends(gateway_of)], caller: Annotated[Caller, Depends(caller_of)]
) -> ModelList:
    """List the models that the caller can ask now, by name, each followed by its adapters by name."""
    workers = sorted((await gateway.registry.fleet()).ready(), key=lambda worker: (worker.model, -worker.started_s))
    oldest = {worker.model: worker for worker in workers}
    cards = {name: _card(worker) for name, worker in oldest.items()}
    for worker in sorted(workers, key=lambda worker: worker.started_s):
        for name in worker.adapters:
            cards.setdefault(name, adapter_card(name, worker))
    allowed = [card for card in cards.values() if caller.models is None or card.id in caller.models]
    return ModelList(data=sorted(allowed, key=lambda card: (card.parent or card.id, card.parent is not None, card.id)))


def adapter_card(name: str, worker: WorkerInfo) -> ModelCard:
    """An adapter as the list shows it."""
    return _card(worker).model_copy(update={"id": name, "parent": worker.model})


def _card(worker: WorkerInfo) -> ModelCard:
    return ModelCard(id=worker.model, created=int(worker.started_s), is_multimodal=bool(worker.modalities))
