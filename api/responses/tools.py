"""Tools of a request for a response, as a chat request has them."""

from api.schema.responses import ChosenTool, ChosenTools, CreateResponse, ResponseTool, ResponseToolChoice
from api.schema.tool import (
    AllowedTools,
    AllowedToolsChoice,
    FunctionDefinition,
    FunctionName,
    FunctionTool,
    NamedTool,
    ToolChoice,
)


def chat_tools(asked: CreateResponse) -> list[FunctionTool] | None:
    """Return the functions that may be called."""
    return None if asked.tools is None else [_tool(tool) for tool in asked.tools]


def chat_choice(choice: ResponseToolChoice | None) -> ToolChoice | None:
    """Return the choice among them."""
    match choice:
        case ChosenTool():
            return _named(choice)
        case ChosenTools():
            allowed = AllowedTools(mode=choice.mode, tools=[_named(tool) for tool in choice.tools])
            return AllowedToolsChoice(type="allowed_tools", allowed_tools=allowed)
        case _:
            return choice


def _tool(tool: ResponseTool) -> FunctionTool:
    function = FunctionDefinition(**tool.model_dump(exclude={"type"}))
    return FunctionTool(type="function", function=function)


def _named(tool: ChosenTool) -> NamedTool:
    return NamedTool(type="function", function=FunctionName(name=tool.name))
