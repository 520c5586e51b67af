"""Who may ask: a bearer key, checked before anything of the request is read."""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from api.keyring import ANYBODY, OPEN_PATHS, Caller, KeyRing
from api.visit import visit_of
from shared.errors import InvalidApiKey

_SCHEME = "bearer "


class ApiKeyGuard:
    """Guards by the path that is routed, not by the URL that a client's headers make up; no key set, no guard."""

    def __init__(self, app: ASGIApp, keyring: KeyRing) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller's name on it, or answer 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (caller := self._caller(scope)) is not None:
            scope["state"]["visit"].caller = caller
            await self._app(scope, receive, send)
        else:
            refusal = error_response(InvalidApiKey("Missing or wrong API key; send it as Authorization: Bearer <key>."))
            await refusal(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        if self._keyring.is_open or scope["path"] in OPEN_PATHS:
            return ANYBODY
        given = Headers(scope=scope).get("authorization", "")
        if given[: len(_SCHEME)].lower() != _SCHEME:
            return None
        return self._keyring.find(given[len(_SCHEME) :].strip().encode("latin-1"))


def caller_of(request: Request) -> Caller:
    """On whose behalf the request is made."""
    return visit_of(request).caller
