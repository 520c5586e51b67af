"""The door to the processes that run chat templates: a template is a program that came with its checkpoint.

What one asks for, in memory or time, costs the request that brought it there an InvalidRequest, and nothing else.
"""

import atexit
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from shared.errors import InvalidRequest
from worker.prepare.children import ChildDied, ChildLate, Children, Trade

NUM_CHILDREN = 2
MEMORY_BYTES = 2**30
TIMEOUT_S = 10.0
MAX_CHARACTER_BYTES = 4
MAX_NAMES_BYTES = 2**20


class Write(msgspec.Struct, tag=True, frozen=True):
    """Asks for the text that a template makes of the conversation in the payload, as msgpack."""

    max_length: int


class Read(msgspec.Struct, tag=True, frozen=True):
    """Asks which variables the template in the payload reads."""


class Conversation(msgspec.Struct, frozen=True):
    """All that a template is given."""

    template: str
    turns: Sequence[dict[str, Any]]
    variables: Mapping[str, Any]


class Said(msgspec.Struct, tag=True, frozen=True):
    """The answer is in the payload."""


class Refused(msgspec.Struct, tag=True, frozen=True):
    """There is none, and why."""

    reason: str


def write(conversation: Conversation, max_length: int) -> str:
    """Return what the template makes of the conversation; raises InvalidRequest if that isn't to be had."""
    task, content = Write(max_length), msgspec.msgpack.encode(conversation)
    return str(_ask(task, content, MAX_CHARACTER_BYTES * max_length), "utf-8")


@lru_cache(maxsize=8)
def read_names(template: str) -> frozenset[str]:
    """Return the variables that a template reads and doesn't set; raises InvalidRequest if it can't be understood."""
    return frozenset(msgspec.msgpack.decode(_ask(Read(), template.encode(), MAX_NAMES_BYTES), type=list[str]))


def _ask(task: Write | Read, content: bytes, max_bytes: int) -> memoryview:
    try:
        with _children().lend() as child:
            answer, payload = child.ask(task, content, max_bytes)
    except ChildLate as late:
        raise InvalidRequest(
            f"the model's template takes longer than {late} over this conversation", param="messages"
        ) from None
    except ChildDied:
        raise InvalidRequest("the model's template breaks the process that runs it", param="messages") from None
    if isinstance(answer, Refused):
        raise InvalidRequest(answer.reason, param="messages")
    return payload


@cache
def _children() -> Children:
    children = Children(Trade("worker.prepare.template_child", Said | Refused, NUM_CHILDREN, MEMORY_BYTES, TIMEOUT_S))
    atexit.register(children.close)
    return children
