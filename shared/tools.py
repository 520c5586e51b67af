"""Functions that a model may call: what the prompt says of them, and how a call is told in the model's own text."""

from enum import StrEnum

import msgspec


class ToolFormat(StrEnum):
    """How tools are told to a model, and how it says that it calls one."""

    HERMES = "hermes"
    """`<tool_call>` around a JSON object of name and arguments, as Qwen2.5 and its kin; any number of calls."""
    REACT = "react"
    """Lines of Thought, Action and Action Input, as Qwen-VL; the answer ends with its first call."""
    LLAMA3_JSON = "llama3_json"
    """A JSON object of name and parameters where the answer begins, as Llama 3.1 and 3.2; `;` between several."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS]` before a list of such objects, or before each name with `[ARGS]` behind it."""


MISTRAL_ID_LENGTH = 9
"""Letters and digits of a call's id; Mistral's templates refuse any other."""


class Tool(msgspec.Struct, frozen=True):
    """One function, as its client describes it."""

    name: str
    description: str | None = None
    parameters: str | None = None
    """The JSON Schema of its arguments, as JSON; None if it takes none."""


class Call(msgspec.Struct, frozen=True):
    """One call that an earlier answer made."""

    id: str
    name: str
    arguments: str
    """JSON, as far as the model that said it knew how."""


class Calling(msgspec.Struct, frozen=True, array_like=True):
    """How to find the calls in an answer's text: all that a gateway needs to know that never saw the job."""

    format: ToolFormat
    names: tuple[str, ...] = ()
    """Of the functions that may be called; none if the conversation only tells of earlier calls."""
    is_named: bool = False
    """Whether the client named the function to be called: the answer then ends with `stop`, as OpenAI's do."""
