"""What a request lets its model call, and whether it must: the rules behind the types of its fields."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from api.conversation import has_calls
from api.schema.request import ChatCompletionRequest
from api.schema.tool import AllowedToolsChoice, FunctionDefinition, NamedTool, ToolMode
from shared.errors import InvalidRequest
from shared.fleet import WorkerInfo
from shared.tools import Calling, Tool

MAX_TOOLS_BYTES = 2**18
"""Of all tools of a request together, as JSON."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What may be called; empty for most requests."""

    functions: tuple[FunctionDefinition, ...] = ()
    tools: tuple[Tool, ...] = ()
    """The same, as the worker takes them."""
    calling: Calling | None = None
    must_call: bool = False
    is_parallel: bool = True
    """Whether one answer may make several calls."""


def open_toolbox(request: ChatCompletionRequest, worker: WorkerInfo) -> Toolbox:
    """Agree on what may be called; raises InvalidRequest that names the field."""
    given = [tool.function for tool in request.tools or ()]
    _check_names(given)
    tools = tuple(_tool(function, f"tools[{i}].function.parameters") for i, function in enumerate(given))
    _check_size(tools)
    mode, wanted = _choice(request)
    _check_choice(wanted, [function.name for function in given])
    kept = [] if mode == "none" else [i for i, function in enumerate(given) if not wanted or function.name in wanted]
    if mode == "required" and not kept:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools; send some.", param="tool_choice")
    if not kept and not has_calls(request.messages):
        return Toolbox()
    is_named = isinstance(request.tool_choice, NamedTool)
    names = tuple(given[i].name for i in kept)
    return Toolbox(
        functions=tuple(given[i] for i in kept),
        tools=tuple(tools[i] for i in kept),
        calling=_calling(worker, names, is_named=is_named),
        must_call=mode == "required",
        is_parallel=request.parallel_tool_calls is not False and not is_named,
    )


def _calling(worker: WorkerInfo, names: tuple[str, ...], *, is_named: bool) -> Calling:
    if worker.tool_format is None:
        raise InvalidRequest(
            f"The model {worker.model!r} is served without tools; leave out tools, and messages that call some.",
            param="tools" if names else "messages",
        )
    return Calling(worker.tool_format, names, is_named)


def _check_names(functions: Sequence[FunctionDefinition]) -> None:
    first: dict[str, int] = {}
    for index, function in enumerate(functions):
        if function.name in first:
            raise InvalidRequest(
                f"tools[{index}] and tools[{first[function.name]}] are both named {function.name!r}; rename one.",
                param=f"tools[{index}].function.name",
            )
        first[function.name] = index


def _tool(function: FunctionDefinition, param: str) -> Tool:
    if not (schema := function.parameters):
        return Tool(function.name, function.description)
    if (kind := schema.get("type")) != "object":
        raise InvalidRequest(
            f"{param} must be the JSON Schema of an object ('type' is {str(kind)[:100]!r}, and must be 'object').",
            param=param,
        )
    try:
        return Tool(function.name, function.description, json.dumps(schema, ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise InvalidRequest(f"{param} has a number that is too large to be written.", param=param) from None


def _check_size(tools: Sequence[Tool]) -> None:
    texts = (text for tool in tools for text in (tool.description, tool.parameters) if text is not None)
    if (size := sum(len(text.encode()) for text in texts)) > MAX_TOOLS_BYTES:
        raise InvalidRequest(
            f"The descriptions and parameters of the tools have {size} bytes together; at most {MAX_TOOLS_BYTES} are "
            "accepted: leave some out.",
            param="tools",
        )


def _choice(request: ChatCompletionRequest) -> tuple[ToolMode, dict[str, str]]:
    """Return the mode, and the fields where functions are named, by name; with none of them all are meant."""
    match choice := request.tool_choice:
        case None:
            return "auto", {}
        case NamedTool():
            return "required", {choice.function.name: "tool_choice.function.name"}
        case AllowedToolsChoice():
            param = "tool_choice.allowed_tools"
            named = {tool.function.name: f"{param}.tools[{i}]" for i, tool in enumerate(choice.allowed_tools.tools)}
            return choice.allowed_tools.mode, named
        case _:
            return choice, {}


def _check_choice(wanted: dict[str, str], known: Sequence[str]) -> None:
    for name, param in wanted.items():
        if name not in known:
            raise InvalidRequest(
                f"{param} is {name[:100]!r}; the tools are {', '.join(known)[:300] or 'none'}.",
                param=param,
            )
