"""What a request lets its model call, and whether it must: the rules behind the types of its fields."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from api.conversation import has_calls
from api.schema.request import ChatCompletionRequest
from api.schema.tool import AllowedToolsChoice, FunctionDefinition, NamedTool, ToolMode
from shared.errors import InvalidRequest
from shared.fleet import WorkerInfo
from shared.tools import Calling, Tool, ToolFormat

MAX_TOOLS_BYTES = 2**18
"""Of all tools of a request together, as JSON."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One function that may be called."""

    function: FunctionDefinition
    tool: Tool
    """The same, as workers take it."""
    param: str
    """Where the client wrote its parameters."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What may be called; empty for most requests."""

    offers: tuple[Offer, ...] = ()
    calling: Calling | None = None
    must_call: bool = False
    is_parallel: bool = True
    """Whether one answer may make several calls."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The functions, as workers take them."""
        return tuple(offer.tool for offer in self.offers)

    @property
    def is_bound(self) -> bool:
        """Whether the answer isn't the model's own choice alone."""
        if not self.offers or self.calling is None:
            return False
        is_limited = not self.is_parallel and self.calling.format is not ToolFormat.REACT  # which makes one call anyway
        return self.must_call or is_limited or any(offer.function.strict for offer in self.offers)


def open_toolbox(request: ChatCompletionRequest, worker: WorkerInfo) -> Toolbox:
    """Agree on what may be called; raises InvalidRequest that names the field."""
    given = [_offer(tool.function, i) for i, tool in enumerate(request.tools or ())]
    names = [offer.tool.name for offer in given]
    _check_names(names)
    _check_size([offer.tool for offer in given])
    mode, wanted = _choice(request)
    _check_choice(wanted, names)
    kept = [] if mode == "none" else [offer for offer in given if not wanted or offer.tool.name in wanted]
    if mode == "required" and not kept:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools; send some.", param="tool_choice")
    if not kept and not has_calls(request.messages):
        return Toolbox()
    is_named = isinstance(request.tool_choice, NamedTool)
    return Toolbox(
        offers=tuple(kept),
        calling=_calling(worker, tuple(offer.tool.name for offer in kept), is_named=is_named),
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


def _check_names(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if (first := names.index(name)) < index:
            raise InvalidRequest(
                f"tools[{index}] and tools[{first}] are both named {name!r}; rename one.",
                param=f"tools[{index}].function.name",
            )


def _offer(function: FunctionDefinition, index: int) -> Offer:
    param = f"tools[{index}].function.parameters"
    return Offer(function, _tool(function, param), param)


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
