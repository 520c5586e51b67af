"""Errors of the chat that a response is, in the words of its client's request."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared.errors import InvalidRequest, JobError, job_error

_MESSAGE = re.compile(r"messages\[(?P<index>\d+)\](?P<rest>(?:\.\w+|\[\d+\])*)")
_NAMES = (
    (re.compile(r"\b(tools\[\d+\]|tool_choice)\.function\b"), r"\1"),
    (re.compile(r"\btool_choice\.allowed_tools\b"), "tool_choice"),
    (re.compile(r"\bresponse_format(?:\.json_schema)?\b"), "text.format"),
    (re.compile(r"\bmax_(?:completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"^messages$"), "input"),
)


def reworded(error: JobError, places: Sequence[str]) -> JobError:
    """Return the error with the client's own names; `places` says where each message was written."""
    if not isinstance(error, InvalidRequest):
        return error
    param = None if error.param is None else _reworded(error.param, places)
    return job_error(error.code, _reworded(error.message, places), param)


@contextmanager
def in_words_of(places: Sequence[str]) -> Iterator[None]:
    """Raise what is raised within in the client's own names."""
    try:
        yield
    except JobError as error:
        raise reworded(error, places) from None


def _reworded(text: str, places: Sequence[str]) -> str:
    text = _MESSAGE.sub(lambda match: _place(match, places), text)
    for name, own in _NAMES:
        text = name.sub(own, text)
    return text


def _place(match: re.Match[str], places: Sequence[str]) -> str:
    if len(match["index"]) > 6 or int(match["index"]) >= len(places):  # the client wrote it, in a name
        return match[0]
    place, rest = places[int(match["index"])], match["rest"]
    if rest == ".tool_call_id":
        return f"{place}.call_id"
    return place + rest if place.endswith("]") and not rest.startswith(".tool_calls") else place
