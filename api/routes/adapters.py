"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, for whoever has the API key."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from api.auth import caller_of
from api.document import error_responses, json_body
from api.gateway import Gateway, gateway_of
from api.keyring import Caller
from api.routes.models import adapter_card
from api.schema.adapter import LoadLoraAdapter, UnloadLoraAdapter
from api.schema.request import check_fields, read_fields
from api.schema.response import ModelCard, ModelDeleted
from shared.errors import PermissionDenied

router = APIRouter()

_REFUSALS = error_responses(400, 401, 403, 404, 503, 504)


def trusted_gateway(
    gateway: Annotated[Gateway, Depends(gateway_of)], caller: Annotated[Caller, Depends(caller_of)]
) -> Gateway:
    """The gateway, if the caller may change what it serves."""
    if caller.name and not caller.manages_adapters:
        raise PermissionDenied(f"The API key {caller.name!r} may not load and unload adapters (manages_adapters).")
    if not caller.name and not gateway.settings.allow_unauthenticated_lora:
        raise PermissionDenied(
            "Adapters are loaded and unloaded by clients with an API key only: start the gateway with --api_key, "
            "or with --allow_unauthenticated_lora true where everybody who reaches it is trusted."
        )
    return gateway


@router.post(
    "/v1/load_lora_adapter",
    summary="Load an adapter",
    responses=_REFUSALS,
    openapi_extra=json_body(LoadLoraAdapter, {"lora_name": "zoo", "lora_path": "/adapters/zoo"}),
)
async def load_lora_adapter(request: Request, gateway: Annotated[Gateway, Depends(trusted_gateway)]) -> ModelCard:
    """Answer once every live worker of the base model serves the adapter."""
    asked = check_fields(LoadLoraAdapter, read_fields(await request.body()))
    worker = await gateway.adapters.load(asked.lora_name, asked.lora_path, asked.base_model)
    return adapter_card(asked.lora_name, worker)


@router.post(
    "/v1/unload_lora_adapter",
    summary="Unload an adapter",
    responses=_REFUSALS,
    openapi_extra=json_body(UnloadLoraAdapter, {"lora_name": "zoo"}),
)
async def unload_lora_adapter(request: Request, gateway: Annotated[Gateway, Depends(trusted_gateway)]) -> ModelDeleted:
    """Answer once no live worker takes new requests for the adapter."""
    asked = check_fields(UnloadLoraAdapter, read_fields(await request.body()))
    await gateway.adapters.unload(asked.lora_name)
    return ModelDeleted(id=asked.lora_name)
