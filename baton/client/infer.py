"""InferClient: many conversations at once, with the words of ms-swift 3.x and 4.x."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from baton.client.answer import ChatCompletionResponse, ChatCompletionStreamResponse, ModelList
from baton.client.batch import CHAT, Batch
from baton.client.endpoint import endpoint_of
from baton.client.exchange import ask_async, encode, fetch_async, stream_async
from baton.client.request import InferRequest, RequestConfig, body_of
from baton.client.stats import Metric

DAY_S = 86400.0
MAX_CONNECTIONS = 64

Answers: TypeAlias = list[ChatCompletionResponse | OSError] | list[Iterator[ChatCompletionStreamResponse]]
_Result = TypeVar("_Result")


class InferClient:
    """A server at `base_url`, which ends in /v1, or else at host and port; nothing is asked before it has to be.

    Several URLs are gateways of the same workers: where one can't be reached the next one is asked, and a stream that
    breaks is gone on with there. With one, it goes on once that one is back.

    At most `max_connections` requests of a call are at the server at once; the others wait here. With `strict` the
    first failure of a call is raised, otherwise it stands where the answer would. `timeout` is the longest silence in
    seconds, None or 0 no limit. All requests raise HTTPError, ConnectionError or TimeoutError.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        api_key: str = "EMPTY",
        *,
        base_url: str | Sequence[str] | None = None,
        timeout: float | None = DAY_S,
        max_connections: int = MAX_CONNECTIONS,
        strict: bool = True,
    ) -> None:
        if max_connections < 1:
            raise ValueError(f"max_connections is {max_connections}; it must be at least 1")
        self._endpoint = endpoint_of(host, port, api_key, base_url, timeout if timeout and timeout > 0 else None)
        self._max_connections = max_connections
        self._models: list[str] | None = None
        self.strict = strict

    @property
    def models(self) -> list[str]:
        """The names of the models, as they were when they were first asked for."""
        return _run(self._names())

    def get_model_list(self) -> ModelList:
        """Return the models that can be asked now."""
        return _run(self.get_model_list_async())

    async def get_model_list_async(self) -> ModelList:
        """Return the models that can be asked now."""
        return await fetch_async(self._endpoint, "models", ModelList)

    def infer(
        self,
        infer_requests: Sequence[InferRequest],
        request_config: RequestConfig | None = None,
        metrics: Sequence[Metric] | None = None,
        *,
        model: str | None = None,
        use_tqdm: bool | None = None,
    ) -> Answers:
        """Return the answers in the order of their requests, or an iterator of chunks for each if they are streamed.

        `model` may be left out if the server has only one. A progress bar is shown for two requests and more that
        are not streamed, unless `use_tqdm` says otherwise.
        """
        config = request_config or RequestConfig()
        if not infer_requests:
            return []
        is_shown = len(infer_requests) > 1 and not config.stream if use_tqdm is None else use_tqdm
        named = model or _run(self._only_model())
        batch = Batch(
            self._endpoint, named, infer_requests, config, metrics or (), self._max_connections, is_shown=is_shown
        )
        return batch.streams() if config.stream else _run(batch.answers(strict=self.strict))

    async def infer_async(
        self, infer_request: InferRequest, request_config: RequestConfig | None = None, *, model: str | None = None
    ) -> ChatCompletionResponse | AsyncIterator[ChatCompletionStreamResponse]:
        """Return one answer, or an async iterator of its chunks if it is streamed."""
        config = request_config or RequestConfig()
        named = model or await self._only_model()
        body = await asyncio.to_thread(lambda: encode(body_of(named, infer_request, config)))
        if config.stream:
            return stream_async(self._endpoint, CHAT, body, ChatCompletionStreamResponse)
        return await ask_async(self._endpoint, CHAT, body, ChatCompletionResponse)

    async def _names(self) -> list[str]:
        if self._models is None:
            self._models = [model.id for model in (await self.get_model_list_async()).data]
        return self._models

    async def _only_model(self) -> str:
        names = await self._names()
        if len(names) != 1:
            raise ValueError(f"name a model; the server has {', '.join(names) or 'none that is ready'}")
        return names[0]


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it to its end, in a thread of its own where this one runs an event loop already, as notebooks do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
