"""GET /v1/models and GET /v1/models/{id}."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import caller_of
from api.document import error_responses
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.schema.response import ModelCard, ModelList
from shared.errors import ModelNotFound
from shared.fleet import WorkerInfo

router = APIRouter()


@router.get("/v1/models", summary="List the models", responses=error_responses(401, 503))
async def list_models(
    gateway: Annotated[Gateway, Depends(gateway_of)], caller: Annotated[Caller, Depends(caller_of)]
) -> ModelList:
    """List the models that the caller can ask now, by name, each followed by its adapters by name."""
    cards = await _cards(gateway, caller)
    return ModelList(data=sorted(cards, key=lambda card: (card.parent or card.id, card.parent is not None, card.id)))


@router.get("/v1/models/{model_id:path}", summary="Show a model", responses=error_responses(401, 404, 503))
async def retrieve_model(
    model_id: str, gateway: Annotated[Gateway, Depends(gateway_of)], caller: Annotated[Caller, Depends(caller_of)]
) -> ModelCard:
    """Show a model or adapter that the caller can ask now; ids may have slashes."""
    for card in await _cards(gateway, caller):
        if card.id == model_id:
            return card
    raise ModelNotFound(
        f"The model {model_id[:200]!r} does not exist here, or you may not ask it; GET /v1/models lists those you may.",
        param="model",
    )


async def _cards(gateway: Gateway, caller: Caller) -> list[ModelCard]:
    """What can be asked now and by this caller."""
    workers = sorted((await gateway.registry.fleet()).ready(), key=lambda worker: (worker.model, -worker.started_s))
    oldest = {worker.model: worker for worker in workers}
    cards = {name: _card(worker) for name, worker in oldest.items()}
    for worker in sorted(workers, key=lambda worker: worker.started_s):
        for name in worker.adapters:
            cards.setdefault(name, adapter_card(name, worker))
    return [card for card in cards.values() if caller.models is None or card.id in caller.models]


def adapter_card(name: str, worker: WorkerInfo) -> ModelCard:
    """An adapter as the list shows it."""
    return _card(worker).model_copy(update={"id": name, "parent": worker.model})


def _card(worker: WorkerInfo) -> ModelCard:
    return ModelCard(id=worker.model, created=int(worker.started_s), is_multimodal=bool(worker.modalities))
