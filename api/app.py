"""The ASGI application: it mounts, and decides nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse

from api.auth import ApiKeyGuard
from api.batch.upload import FORM_BYTES
from api.departure import Departure
from api.document import describe
from api.errors import translate_errors
from api.gateway import open_gateway
from api.keyring import KeyRing
from api.limit import BodyLimit
from api.page import HEADERS, render
from api.routes import (
    adapters,
    batches,
    cancel,
    chat,
    completions,
    events,
    files,
    health,
    metrics,
    models,
    responses,
    tokens,
    transcriptions,
    version,
)
from api.settings import ApiSettings
from api.visit import VisitLog

ROUTES = (
    chat,
    events,
    cancel,
    responses,
    completions,
    tokens,
    transcriptions,
    files,
    batches,
    models,
    version,
    adapters,
    health,
    metrics,
)


def create_app(settings: ApiSettings, gateway_id: str, departure: Departure) -> FastAPI:
    """Return the application; its parts live from startup to shutdown. Raises KeyFileError."""
    keyring = KeyRing(settings.api_key, settings.api_keys_file)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings, gateway_id, departure, keyring) as app.state.gateway:
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    own_bytes = {files.UPLOAD_PATH: settings.max_file_bytes + FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, own_bytes=own_bytes)
    app.add_middleware(ApiKeyGuard, keyring=keyring)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(VisitLog)  # the last one added is the outermost
    translate_errors(app)
    for route in ROUTES:
        app.include_router(route.router)
    _add_documents(app)
    return app


def _add_documents(app: FastAPI) -> None:
    """Mount what the routes say of themselves, written when first asked for: it takes longer than all else at start."""
    app.openapi = cache(lambda: describe(app))  # type: ignore[method-assign]  # as FastAPI's own guide replaces it
    page = cache(lambda: HTMLResponse(render(app.openapi()), headers=HEADERS))
    document = cache(lambda: JSONResponse(app.openapi()))
    app.add_api_route("/docs", lambda: page(), include_in_schema=False)
    app.add_api_route("/openapi.json", lambda: document(), methods=["GET", "HEAD"], include_in_schema=False)
