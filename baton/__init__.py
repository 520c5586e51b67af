"""What a person touches: the command line and the Python client, whose names are loaded when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baton.client.answer import (
        ChatCompletionResponse,
        ChatCompletionStreamResponse,
        CompletionResponse,
        CompletionStreamResponse,
        ModelList,
    )
    from baton.client.conversion import convert_to_base64, decode_base64
    from baton.client.error import HTTPError
    from baton.client.infer import InferClient
    from baton.client.inference import (
        get_model_list_client,
        get_model_list_client_async,
        inference_client,
        inference_client_async,
    )
    from baton.client.request import InferRequest, RequestConfig, XRequestConfig
    from baton.client.stats import InferStats

__version__ = "0.1.0"
__all__ = [
    "ChatCompletionResponse",
    "ChatCompletionStreamResponse",
    "CompletionResponse",
    "CompletionStreamResponse",
    "HTTPError",
    "InferClient",
    "InferRequest",
    "InferStats",
    "ModelList",
    "RequestConfig",
    "XRequestConfig",
    "__version__",
    "convert_to_base64",
    "decode_base64",
    "get_model_list_client",
    "get_model_list_client_async",
    "inference_client",
    "inference_client_async",
]

_HOMES = {
    "answer": (
        "ChatCompletionResponse",
        "ChatCompletionStreamResponse",
        "CompletionResponse",
        "CompletionStreamResponse",
        "ModelList",
    ),
    "conversion": ("convert_to_base64", "decode_base64"),
    "error": ("HTTPError",),
    "infer": ("InferClient",),
    "inference": (
        "get_model_list_client",
        "get_model_list_client_async",
        "inference_client",
        "inference_client_async",
    ),
    "request": ("InferRequest", "RequestConfig", "XRequestConfig"),
    "stats": ("InferStats",),
}
_MODULES = {name: f"baton.client.{module}" for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # with it, a checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """Load a part of the client; the command line needs none of it to start."""
        if name not in _MODULES:
            raise AttributeError(f"module 'baton' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
