"""Tools and calls as OpenAI describes them, which is what templates are written for."""

from pydantic_core import from_json

from shared.tools import Call, Tool


def as_openai(tool: Tool) -> dict[str, object]:
    """Return the tool, with what it has only."""
    told = {"name": tool.name, "description": tool.description, "parameters": from_json(tool.parameters or "null")}
    return {"type": "function", "function": {name: value for name, value in told.items() if value is not None}}


def arguments_of(call: Call) -> object:
    """Return the arguments as JSON has them, or as they were said where they aren't JSON."""
    try:
        given = from_json(call.arguments, allow_inf_nan=False)
    except ValueError:
        return call.arguments
    return given if isinstance(given, dict) else call.arguments
