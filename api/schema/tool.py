"""Tools, the choice among them, and calls of them, as OpenAI names them in a request."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, StringConstraints, Tag

from api.schema.strict import Schema

MAX_TOOLS = 128
MAX_NAME_LENGTH = 64
MAX_DESCRIPTION_LENGTH = 16_384
MAX_CALLS = 128
MAX_ID_LENGTH = 256

ToolName: TypeAlias = Annotated[
    str, StringConstraints(pattern="^[a-zA-Z0-9_-]+$", min_length=1, max_length=MAX_NAME_LENGTH)
]


class FunctionDefinition(Schema):
    """What may be called, and with what."""

    name: ToolName
    description: str | None = Field(None, max_length=MAX_DESCRIPTION_LENGTH)
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object's; a function without it takes none."""
    strict: bool | None = None
    """Whether arguments are bound to the schema; those of a forced call always are."""


class FunctionTool(Schema):
    """A tool; functions are the only ones there are."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Schema):
    """A function among the tools."""

    name: str


class NamedTool(Schema):
    """The one tool to be called, or one of those that may be."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Schema):
    """Some of the tools, and whether one of them has to be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedToolsChoice(Schema):
    """The choice to use some of the tools only."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def choice_kind(choice: Any) -> Any:
    """Tell a mode from an object by its type, so that what is wrong is said of the right one."""
    if isinstance(choice, dict):
        return choice.get("type")
    return getattr(choice, "type", "mode")


ToolMode: TypeAlias = Literal["none", "auto", "required"]
ToolChoice: TypeAlias = Annotated[
    Annotated[ToolMode, Tag("mode")]
    | Annotated[NamedTool, Tag("function")]
    | Annotated[AllowedToolsChoice, Tag("allowed_tools")],
    Discriminator(choice_kind),
]


class FunctionCall(Schema):
    """What was called, and with what."""

    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)
    arguments: str
    """JSON as the model said it, valid or not."""


class ToolCall(Schema):
    """A call that an earlier answer made."""

    id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)
    type: Literal["function"]
    function: FunctionCall
