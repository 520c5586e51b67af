"""Who may ask: one bearer key, checked before anything of the request is read."""

import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from shared.errors import InvalidApiKey

_SCHEME = "bearer "


class ApiKeyGuard:
    """Guards every path under /v1; without a key set, nothing is guarded."""

    def __init__(self, app: ASGIApp, api_key: SecretStr | None) -> None:
        self._app = app
        self._api_key = None if api_key is None else api_key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and _is_guarded(scope["path"]) and not self._admits(Headers(scope=scope)):
            refusal = error_response(InvalidApiKey("Missing or wrong API key; send it as Authorization: Bearer <key>."))
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        if self._api_key is None:
            return True
        given = headers.get("authorization", "")
        is_bearer = given[: len(_SCHEME)].lower() == _SCHEME
        return is_bearer and hmac.compare_digest(given[len(_SCHEME) :].strip().encode("latin-1"), self._api_key)


def _is_guarded(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")
