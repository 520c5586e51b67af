"""How large a request body may be, whether it says its length or comes in chunks."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Raises HTTPException where the application reads too much, so that its handlers answer."""

    def __init__(self, app: ASGIApp, max_bytes: int, own_bytes: Mapping[str, int]) -> None:
        """`own_bytes` are the limits of paths that have one of their own."""
        self._app = app
        self._max_bytes = max_bytes
        self._own_bytes = own_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._own_bytes.get(scope["path"], self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        num_announced, num_bytes = int(announced) if announced.isdecimal() else 0, 0

        async def counted() -> Message:
            nonlocal num_bytes
            _check(num_announced, most)
            message = await receive()
            num_bytes += len(message.get("body", b""))
            _check(num_bytes, most)
            return message

        await self._app(scope, counted, send)


def _check(num_bytes: int, most: int) -> None:
    if num_bytes > most:
        raise HTTPException(413, f"the request body is larger than {most} bytes")
