"""The functions of ms-swift 2.x: the scripts of its deployment guide run by importing them from baton."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias

from baton.client.answer import (
    ChatCompletionResponse,
    ChatCompletionStreamResponse,
    CompletionResponse,
    CompletionStreamResponse,
    Model,
    ModelList,
)
from baton.client.endpoint import endpoint_of, timeout_from_environment
from baton.client.exchange import ask, ask_async, encode, fetch, fetch_async, stream, stream_async
from baton.client.medium import Medium
from baton.client.question import History, Question
from baton.client.request import XRequestConfig

Answer: TypeAlias = ChatCompletionResponse | CompletionResponse
Chunk: TypeAlias = ChatCompletionStreamResponse | CompletionStreamResponse

CHAT, COMPLETION, MODELS = "chat/completions", "completions", "models"
_ANSWERS: dict[str, type[Answer]] = {CHAT: ChatCompletionResponse, COMPLETION: CompletionResponse}
_CHUNKS: dict[str, type[Chunk]] = {CHAT: ChatCompletionStreamResponse, COMPLETION: CompletionStreamResponse}


def get_model_list_client(
    host: str = "127.0.0.1", port: str | int = "8000", api_key: str = "EMPTY", *, url: str | Sequence[str] | None = None
) -> ModelList:
    """Return the models that can be asked now.

    `url` replaces host and port, and ends in /v1. Raises HTTPError, ConnectionError, TimeoutError; the variable
    TIMEOUT is the longest silence in seconds (1800).
    """
    return fetch(endpoint_of(host, port, api_key, url, timeout_from_environment()), MODELS, ModelList)


async def get_model_list_client_async(
    host: str = "127.0.0.1", port: str | int = "8000", api_key: str = "EMPTY", *, url: str | Sequence[str] | None = None
) -> ModelList:
    """Return the models that can be asked now."""
    return await fetch_async(endpoint_of(host, port, api_key, url, timeout_from_environment()), MODELS, ModelList)


def inference_client(
    model_type: str,
    query: str,
    history: History | None = None,
    system: str | None = None,
    images: Sequence[Medium] | None = None,
    tools: list[dict[str, Any]] | None = None,
    tool_choice: str | dict[str, Any] | None = "auto",
    *,
    is_chat_request: bool | None = None,
    is_multimodal: bool | None = None,
    request_config: XRequestConfig | None = None,
    host: str = "127.0.0.1",
    port: str | int = "8000",
    api_key: str = "EMPTY",
    audios: Sequence[Medium] | None = None,
    videos: Sequence[Medium] | None = None,
    url: str | Sequence[str] | None = None,
    roles: Sequence[Sequence[str]] | None = None,
    is_chat: bool | None = None,
) -> Answer | Iterator[Chunk]:
    """Return the answer to a query, or an iterator of its chunks if `request_config` asks for a stream.

    Local files in the lists, and in the tags of a multimodal model's texts, are sent as base64; a text from others
    may therefore name files of this machine: `is_multimodal=False` leaves tags alone. The server is asked what the
    model is unless `is_chat_request` (or `is_chat`) and `is_multimodal` say so. Raises as get_model_list_client.
    """
    endpoint = endpoint_of(host, port, api_key, url, timeout_from_environment())
    question = Question(model_type, query, history, system, images, audios, videos, tools, tool_choice, roles)
    config = request_config or XRequestConfig()
    is_chat = is_chat_request if is_chat_request is not None else is_chat
    if is_chat is None or is_multimodal is None:
        model = _find(fetch(endpoint, MODELS, ModelList), model_type)
        is_chat, is_multimodal = _agreed(model, is_chat, is_multimodal)
    path, body = _request(question, config, is_chat=is_chat, is_multimodal=is_multimodal)
    if config.stream:
        return stream(endpoint, path, body, _CHUNKS[path])
    return ask(endpoint, path, body, _ANSWERS[path])


async def inference_client_async(
    model_type: str,
    query: str,
    history: History | None = None,
    system: str | None = None,
    images: Sequence[Medium] | None = None,
    tools: list[dict[str, Any]] | None = None,
    tool_choice: str | dict[str, Any] | None = "auto",
    *,
    is_chat_request: bool | None = None,
    is_multimodal: bool | None = None,
    request_config: XRequestConfig | None = None,
    host: str = "127.0.0.1",
    port: str | int = "8000",
    api_key: str = "EMPTY",
    audios: Sequence[Medium] | None = None,
    videos: Sequence[Medium] | None = None,
    url: str | Sequence[str] | None = None,
    roles: Sequence[Sequence[str]] | None = None,
    is_chat: bool | None = None,
) -> Answer | AsyncIterator[Chunk]:
    """Return what inference_client returns, or an async iterator of chunks."""
    endpoint = endpoint_of(host, port, api_key, url, timeout_from_environment())
    question = Question(model_type, query, history, system, images, audios, videos, tools, tool_choice, roles)
    config = request_config or XRequestConfig()
    is_chat = is_chat_request if is_chat_request is not None else is_chat
    if is_chat is None or is_multimodal is None:
        model = _find(await fetch_async(endpoint, MODELS, ModelList), model_type)
        is_chat, is_multimodal = _agreed(model, is_chat, is_multimodal)
    path, body = _request(question, config, is_chat=is_chat, is_multimodal=is_multimodal)
    if config.stream:
        return stream_async(endpoint, path, body, _CHUNKS[path])
    return await ask_async(endpoint, path, body, _ANSWERS[path])


def _find(models: ModelList, name: str) -> Model:
    """Return the model of this name; one that is not listed is the server's to refuse, which says it better."""
    return next((model for model in models.data if model.id == name), Model(name))


def _agreed(model: Model, is_chat: bool | None, is_multimodal: bool | None) -> tuple[bool, bool]:
    return (
        model.is_chat if is_chat is None else is_chat,
        model.is_multimodal if is_multimodal is None else is_multimodal,
    )


def _request(question: Question, config: XRequestConfig, *, is_chat: bool, is_multimodal: bool) -> tuple[str, bytes]:
    if is_chat:
        return CHAT, encode(question.chat_body(config, is_multimodal=is_multimodal))
    return COMPLETION, encode(question.completion_body(config, is_multimodal=is_multimodal))
