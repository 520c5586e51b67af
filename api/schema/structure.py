"""The fields that say what an answer must look like: OpenAI's `response_format`, and vLLM's names for the same."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints

from api.schema.strict import Schema


class TextFormat(Schema):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Schema):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchema(Schema):
    """A JSON schema with its name; the answer always matches it, `strict` or not."""

    name: Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    """This field and the description name the schema to people; the model doesn't see them."""
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Schema):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Schema):
    """What the answer must match; one of these."""

    json_schema: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = Field(None, min_length=1)
    grammar: str | None = None
    json_object: bool | None = None
