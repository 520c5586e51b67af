"""Log lines of every process: one shape, and never a prompt in them."""

import logging

_QUIET = ("arq", "httpx", "httpx2", "httpcore", "httpcore2", "sse_starlette", "urllib3", "filelock", "asyncio")
"""Libraries that log request content or chatter below WARNING."""


def configure_logging(level: str) -> None:
    """Send the process's log lines to stderr."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S"
    )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
