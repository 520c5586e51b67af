"""The OpenAPI document: what the routes say of themselves, and the bodies that they read by themselves."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.schema.adapter import LoadLoraAdapter, UnloadLoraAdapter
from api.schema.batch import CreateBatch
from api.schema.completion import CompletionRequest
from api.schema.file import FileForm
from api.schema.request import ChatCompletionRequest
from api.schema.response import ErrorBody
from api.schema.responses import CreateResponse
from api.schema.tokens import DetokenizeRequest, TokenizeRequest
from api.schema.transcription import TranscriptionRequest

_BODIES: tuple[type[BaseModel], ...] = (
    ChatCompletionRequest,
    CompletionRequest,
    CreateResponse,
    TokenizeRequest,
    DetokenizeRequest,
    TranscriptionRequest,
    CreateBatch,
    FileForm,
    LoadLoraAdapter,
    UnloadLoraAdapter,
)
_SCHEMAS = "#/components/schemas/{model}"
_ABOUT = (
    "Multimodal chat over OpenAI's protocol. Point any OpenAI client at `/v1`. Every field is honoured or refused with"
    " a 400 whose `error.param` names it; unknown fields are refused too."
)
_FIELDS: Mapping[str, str] = {
    "model": "Id of a model or an adapter, as `GET /v1/models` lists them.",
    "messages": "The conversation; the last message is the user's, or the result of a call.",
    "temperature": "0 always takes the likeliest token; the model's own default if absent.",
    "top_p": "Sample from the likeliest tokens that have this probability together.",
    "top_k": "Sample from this many of the likeliest tokens; 0 and -1 are all.",
    "min_p": "Drop tokens less likely than this share of the likeliest.",
    "repetition_penalty": "Above 1 makes tokens of prompt and answer less likely; the model's own default if absent.",
    "presence_penalty": "Taken from the logit of each token that the answer has already.",
    "frequency_penalty": "The same, once for each time that the answer has it.",
    "logit_bias": "Token id, as a string, and what is added to its logit.",
    "n": "Answers to the prompt, up to the server's `--max_n`; 1 if absent.",
    "logprobs": "Tell each token's log-probability.",
    "top_logprobs": "And those of so many of the likeliest tokens at its place.",
    "min_tokens": "The answer doesn't end by itself before it has so many tokens.",
    "ignore_eos": "Go on where the model would end its answer.",
    "timeout": "Seconds from acceptance to the last token, up to the server's `--request_timeout_s`.",
    "priority": "Lower is served earlier; 0 if absent, and not below what the API key may ask for.",
    "prompt": "A string, token ids, or a list of either; each prompt has its own choices.",
    "seed": "The same seed gives the same answer.",
    "stop": "The answer ends before the first of these.",
    "max_tokens": "Most tokens of the answer; older name of `max_completion_tokens`.",
    "max_completion_tokens": "Most tokens of the answer; what fits the context if absent.",
    "stream": "Send the answer as server-sent events, token by token.",
    "stream_options": "What a stream carries beside the text.",
    "images": "Pictures for `<image>` tags in the texts, or in front of them.",
    "videos": "Clips for `<video>` tags in the texts, or in front of them.",
    "audios": "Recordings for `<audio>` tags in the texts, or in front of them.",
    "metadata": "Labels; they stand in the request's trace, and have no effect on the answer.",
    "user": "Names your own customer, in the request's trace; it has no effect on the answer.",
    "safety_identifier": "Like `user`, which it replaces.",
    "prompt_cache_key": "Without effect: what prompts have in common is found without it.",
    "chat_template_kwargs": "Variables of the model's chat template, as `enable_thinking`; refused if it reads none.",
    "tools": "Functions that the model may call.",
    "tool_choice": "Whether it calls, and what: `none`, `auto`, `required`, one function, or some of them.",
    "parallel_tool_calls": "Whether an answer may make several calls; true if absent.",
    "mm_processor_kwargs": "Wishes about how pictures and clips are prepared.",
}

_PARAMETERS: Mapping[str, str] = {
    "completion_id": "The `id` of the answer.",
    "response_id": "The `id` of the response.",
    "file_id": "The `id` of the file.",
    "batch_id": "The `id` of the batch.",
    "model_id": "As `GET /v1/models` lists it.",
    "last-event-id": "The `id` of the last event that came; the stream goes on behind it.",
    "include_usage": "Whether the last chunk says how many tokens there were.",
    "stream": "Send events instead of the whole.",
    "starting_after": "The `sequence_number` of the last event that came.",
    "include_obfuscation": "Never: nothing is added to events.",
    "limit": "Entries of a page.",
    "order": "By age: `asc` begins with the oldest.",
    "after": "The `id` that the page follows.",
    "purpose": "Only the files of this one.",
    "accept": "OpenMetrics if it asks for that, else Prometheus' own text.",
}
_PLAIN_SUCCESS = "Successful Response"
"""What FastAPI says of a route that says nothing."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its `responses`."""
    said = {
        400: "A field or a medium is refused; `error.param` names it.",
        401: "The API key is missing or wrong.",
        403: "The server is not set up to let clients ask for that.",
        404: "Nobody knows a thing of that name.",
        413: "The body is larger than the server takes.",
        429: "Too many requests wait; `Retry-After` says when to come back.",
        500: "Something broke on the server's side.",
        502: "Part of the answer was lost.",
        503: "No live worker serves that now; `Retry-After` says when to come back.",
        504: "The answer was not finished in time.",
    }
    return {status: {"model": ErrorBody, "description": said[status]} for status in statuses}


def json_body(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a route that reads it by itself, for its `openapi_extra`."""
    return _body("application/json", model, example)


def form_body(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """The form of a route that reads it by itself, for its `openapi_extra`."""
    return _body("multipart/form-data", model, example)


def _body(kind: str, model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema, "example": example}}}}


def body_models() -> tuple[type[BaseModel], ...]:
    """The schemas of the bodies that routes read by themselves."""
    return _BODIES


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the document of all that is mounted."""
    document = get_openapi(title="Baton", version=version("baton"), description=_ABOUT, routes=app.routes)
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]
    schemas = components.setdefault("schemas", {})
    for model in _BODIES:
        schema = model.model_json_schema(ref_template=_SCHEMAS)
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    for model in _BODIES:
        for name, field in schemas[model.__name__]["properties"].items():
            if name in _FIELDS:
                field.setdefault("description", _FIELDS[name])
    for name in ("HTTPValidationError", "ValidationError"):  # what is wrong with a parameter is told as all else is
        schemas.pop(name, None)
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        _tell(operation)
    return document


def _tell(operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)
    for answer in operation["responses"].values():
        if answer["description"] == _PLAIN_SUCCESS:
            answer["description"] = "What was asked for."
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in _PARAMETERS:
            parameter.setdefault("description", _PARAMETERS[parameter["name"]])
