"""What a request says its answer must look like, whichever of the fields for it says so."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import from_json

from api.grammar import choice_grammar, context_free_grammar, json_grammar, object_grammar, regex_grammar
from api.schema.request import ChatCompletionRequest
from api.schema.structure import JsonObjectFormat, JsonSchemaFormat, StructuredOutputs
from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that the answer must match."""

    param: str
    """Where the client wrote it."""
    write: Callable[[str], str]

    def grammar(self) -> str:
        """Return the grammar, or raise InvalidRequest; takes some ms, so it belongs into a thread."""
        return self.write(self.param)


def find_wish(request: ChatCompletionRequest) -> Wish | None:
    """Return what the answer must match, if anything; raise InvalidRequest if several fields want something."""
    wishes = [*_openai_wishes(request), *_vllm_wishes(request), *_structured_wishes(request.structured_outputs)]
    if len(wishes) > 1:
        first, second = wishes[0].param, wishes[1].param
        raise InvalidRequest(f"{first} and {second} both say what the answer must match; send one.", param=second)
    return wishes[0] if wishes else None


def _openai_wishes(request: ChatCompletionRequest) -> Iterator[Wish]:
    match request.response_format:
        case JsonObjectFormat():
            yield Wish("response_format", lambda param: object_grammar())
        case JsonSchemaFormat(json_schema=asked):
            yield Wish("response_format.json_schema.schema", partial(json_grammar, asked.json_schema))


def _vllm_wishes(request: ChatCompletionRequest) -> Iterator[Wish]:
    if (schema := request.guided_json) is not None:
        yield Wish("guided_json", partial(_json, schema))
    if (regex := request.guided_regex) is not None:
        yield Wish("guided_regex", partial(regex_grammar, regex))
    if (choices := request.guided_choice) is not None:
        yield Wish("guided_choice", partial(choice_grammar, choices))
    if (source := request.guided_grammar) is not None:
        yield Wish("guided_grammar", partial(context_free_grammar, source))


def _structured_wishes(asked: StructuredOutputs | None) -> Iterator[Wish]:
    if asked is None:
        return
    if asked.json_schema is not None:
        yield Wish("structured_outputs.json", partial(_json, asked.json_schema))
    if asked.regex is not None:
        yield Wish("structured_outputs.regex", partial(regex_grammar, asked.regex))
    if asked.choice is not None:
        yield Wish("structured_outputs.choice", partial(choice_grammar, asked.choice))
    if asked.grammar is not None:
        yield Wish("structured_outputs.grammar", partial(context_free_grammar, asked.grammar))
    if asked.json_object:
        yield Wish("structured_outputs.json_object", lambda param: object_grammar())


def _json(schema: dict[str, Any] | str, param: str) -> str:
    if isinstance(schema, str):
        try:
            schema = from_json(schema, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidRequest(f"{param} is not valid JSON: {error}.", param=param) from None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{param} must be a JSON schema, which is an object.", param=param)
    return json_grammar(schema, param)
