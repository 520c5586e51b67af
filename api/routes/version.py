"""GET /version."""

from importlib.metadata import version

from fastapi import APIRouter

from api.document import error_responses
from api.schema.response import ServerVersion

router = APIRouter()


@router.get("/version", summary="Tell the release", responses=error_responses(401))
async def show_version() -> ServerVersion:
    """Tell which release of Baton serves, in vLLM's shape."""
    return ServerVersion(version=version("baton"))
