"""Log lines of every process: one shape, as text or JSON, with the job they are about and never a prompt in them."""

import json
import logging
import time
from contextvars import ContextVar
from typing import Literal

LogFormat = Literal["text", "json"]

current_job: ContextVar[str] = ContextVar("current_job", default="")
"""The job that this task works for; lines that say nothing else are about it."""

_QUIET = (
    "arq",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "sse_starlette",
    "urllib3",
    "filelock",
    "asyncio",
    "PIL",
    "multipart",
    "python_multipart",
    "opentelemetry",
)
"""Libraries that log request content or chatter below WARNING."""


def configure_logging(level: str, format_: LogFormat, process: str) -> None:
    """Send the process's log lines to stderr; `process` names it in each line of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(process) if format_ == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)  # they are lines as well
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, which names the job if the message doesn't."""
        line, job = super().format(record), _job(record)
        return line if not job or job in line else f"{line} [{job}]"


class JsonLines(logging.Formatter):
    """One JSON object a line, for whatever collects them."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
        }
        if job := _job(record):
            fields["job"] = job
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def _job(record: logging.LogRecord) -> str:
    job: str = getattr(record, "job", "") or current_job.get()
    return job
