"""`api`: one gateway process."""

import signal
import sys
from contextlib import suppress
from uuid import uuid4

import uvicorn
from sse_starlette.sse import AppStatus

from api.app import create_app
from api.connection import guarded
from api.departure import Departure
from api.keyring import KeyFileError
from api.server import Server, listening_socket
from api.settings import ApiSettings
from shared.logs import configure_logging


def main() -> None:
    """Serve until told to stop; then let running answers end, for a while."""
    settings = ApiSettings.read()
    gateway_id, departure = uuid4().hex, Departure()
    configure_logging(settings.log_level, settings.log_format, gateway_id)
    try:
        app = create_app(settings, gateway_id, departure)
    except KeyFileError as error:
        sys.exit(f"api: {error}")
    AppStatus.enable_automatic_graceful_drain = False  # it would cut running streams at once
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=guarded(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises the signal again once all has ended well
    with suppress(KeyboardInterrupt):
        Server(config, settings, departure).run([listening_socket(config, settings.send_timeout_s)])


if __name__ == "__main__":
    main()
