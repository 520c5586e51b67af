"""What a request must be, beyond its fields' types, and the job it becomes when it is.

The only place where limits and defaults of a request are applied.
"""

import secrets
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from api.conversation import check_calls
from api.identity import CHAT_PREFIX, raw_id, raw_jobs_of
from api.keyring import Caller
from api.media import MediaSource
from api.schema.completion import CompletionRequest
from api.schema.request import ChatCompletionRequest
from api.schema.sampling import MAX_SEED
from api.schema.tokens import DetokenizeRequest, TokenizeRequest
from api.tools import Toolbox
from shared.errors import InvalidRequest, PermissionDenied
from shared.fleet import WorkerInfo
from shared.job import ChatJob, JobId, Lookup, Message, ProcessorParams, SamplingParams


def validate(request: ChatCompletionRequest, worker: WorkerInfo, max_n: int) -> SamplingParams:
    """Check all that can be checked without touching media; return the sampling with every default filled in."""
    _check_messages(request)
    _check_stream_options(request)
    _check_n(request, max_n)
    return _sampling(request, worker)


def with_grammar(sampling: SamplingParams, grammar: str, param: str) -> SamplingParams:
    """Return the sampling of an answer that ends where its grammar does, so that nothing else may put off its end."""
    for name, is_asked in (("ignore_eos", sampling.ignore_eos), ("min_tokens", sampling.min_tokens)):
        if is_asked:
            raise InvalidRequest(
                f"{name} can't be honoured beside {param}, which says where the answer ends; send one of them.",
                param=name,
            )
    return msgspec.structs.replace(sampling, grammar=grammar)


def check_media(sources: Sequence[MediaSource], worker: WorkerInfo, max_media: int) -> None:
    """Refuse media that the model doesn't take, or too many of them."""
    for source in sources:
        if source.kind not in worker.modalities:
            taken = " and ".join(("text", *worker.modalities))
            raise InvalidRequest(
                f"The model {worker.model!r} takes {taken} only, no {source.kind}.", param=source.param
            )
    if len(sources) > max_media:
        raise InvalidRequest(
            f"The request has {len(sources)} pictures, clips and recordings; at most {max_media} are accepted.",
            param=sources[max_media].param,
        )


def processor_params(request: ChatCompletionRequest, worker: WorkerInfo) -> ProcessorParams:
    """Return the request's wishes about its prompt; a model without media can't honour any about those."""
    template = request.chat_template_kwargs or None
    if (asked := request.mm_processor_kwargs) is None:
        return ProcessorParams(chat_template_kwargs=template)
    if not worker.modalities:
        raise InvalidRequest(f"The model {worker.model!r} takes text only.", param="mm_processor_kwargs")
    if asked.num_frames is not None and asked.fps is not None:
        raise InvalidRequest(
            "num_frames and fps both choose the frames of a clip; send one of them.", param="mm_processor_kwargs.fps"
        )
    if asked.min_pixels is not None and asked.max_pixels is not None and asked.min_pixels > asked.max_pixels:
        raise InvalidRequest(
            f"min_pixels is {asked.min_pixels} and max_pixels {asked.max_pixels}; it must not be more.",
            param="mm_processor_kwargs.min_pixels",
        )
    return ProcessorParams(**asked.model_dump(), chat_template_kwargs=template)


def timeout_s(request: ChatCompletionRequest, max_s: float) -> float:
    """Return how long the request may take: what it asks for, or what it may at most."""
    if request.timeout is not None and request.timeout > max_s:
        raise InvalidRequest(
            f"timeout is {request.timeout:g} s, and this server lets a request take {max_s:g} s at most.",
            param="timeout",
        )
    return request.timeout or max_s


def priority(request: ChatCompletionRequest, caller: Caller) -> int:
    """Return the request's priority; raise PermissionDenied if its key may not go first that much."""
    asked = request.priority or 0
    if caller.min_priority is not None and asked < caller.min_priority:
        raise PermissionDenied(
            f"priority is {asked}, and the API key {caller.name!r} may ask for {caller.min_priority} or more "
            "(lower is earlier).",
            param="priority",
        )
    return asked


def check_model(model: str, caller: Caller) -> None:
    """Raise PermissionDenied if the API key is not meant for this model or adapter."""
    if caller.models is not None and model not in caller.models:
        raise PermissionDenied(
            f"The API key {caller.name!r} may not ask the model {model[:200]!r}; it may ask: "
            f"{', '.join(caller.models) or 'none'}.",
            param="model",
        )


def chat_job(
    request: ChatCompletionRequest,
    worker: WorkerInfo,
    gateway: str,
    messages: tuple[Message, ...],
    sampling: SamplingParams,
    processor: ProcessorParams,
    created_s: float,
    timeout_s: float,
    toolbox: Toolbox,
    name: str,
) -> ChatJob:
    """Name the job and fix its deadline; a model asked for by another name is an adapter of the one that serves."""
    return ChatJob(
        id=JobId(f"{CHAT_PREFIX}{name}"),
        model=worker.model,
        gateway=gateway,
        messages=messages,
        sampling=sampling,
        n=request.n or 1,
        processor=processor,
        created_s=created_s,
        deadline_s=created_s + timeout_s,
        adapter=None if request.model == worker.model else request.model,
        tools=toolbox.tools,
        calling=toolbox.calling,
    )


def raw_jobs(job: ChatJob, request: CompletionRequest, name: str) -> list[ChatJob]:
    """Return one job for each prompt, to be continued as it stands; draws differ unless the request has a seed."""
    ids = raw_jobs_of(raw_id(name, len(request.prompt)))
    return [
        msgspec.structs.replace(
            job,
            id=job_id,
            echoes=bool(request.echo),
            messages=(),
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            sampling=job.sampling if request.seed is not None else _drawn_anew(job.sampling),
        )
        for job_id, prompt in zip(ids, request.prompt, strict=True)
    ]


def lookup_job(job: ChatJob, request: TokenizeRequest | DetokenizeRequest) -> ChatJob:
    """Return the job that asks only which tokens the prompt has."""
    prompt = request.raw_prompt()
    return msgspec.structs.replace(
        job,
        id=JobId(f"tok-{uuid4().hex}"),
        messages=job.messages if prompt is None else (),
        prompt=prompt,
        lookup=Lookup(is_bare=request.is_bare()),
    )


def _drawn_anew(sampling: SamplingParams) -> SamplingParams:
    return msgspec.structs.replace(sampling, seed=secrets.randbelow(MAX_SEED + 1))


def _check_messages(request: ChatCompletionRequest) -> None:
    if not request.messages:
        raise InvalidRequest("messages must have at least one message.", param="messages")
    for i, message in enumerate(request.messages[1:], start=1):
        if message.role in {"system", "developer"}:
            raise InvalidRequest("Only the first message may be a system message.", param=f"messages[{i}].role")
    if (role := request.messages[-1].role) not in {"user", "tool"}:
        raise InvalidRequest(
            f"The last message must be of role user or tool, not {role}.",
            param=f"messages[{len(request.messages) - 1}].role",
        )
    check_calls(request.messages)


def _check_stream_options(request: ChatCompletionRequest) -> None:
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true.", param="stream_options")


def _check_n(request: ChatCompletionRequest, max_n: int) -> None:
    if request.n is not None and request.n > max_n:
        raise InvalidRequest(f"n is {request.n}; at most {max_n} answers to one request are accepted.", param="n")


def _sampling(request: ChatCompletionRequest, worker: WorkerInfo) -> SamplingParams:
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "min_p": request.min_p,
        "repetition_penalty": _repetition_penalty(request, worker),
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logit_bias": tuple((int(token_id), bias) for token_id, bias in (request.logit_bias or {}).items()),
        "num_logprobs": _num_logprobs(request),
        "stop": None if request.stop is None else tuple(request.stop),
        "max_tokens": (max_tokens := _max_tokens(request, worker)),
        "min_tokens": _min_tokens(request, max_tokens or worker.max_model_len),
        "ignore_eos": request.ignore_eos,
        "seed": secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed & MAX_SEED,
    }
    return msgspec.structs.replace(worker.sampling, **{k: v for k, v in given.items() if v is not None})


def _repetition_penalty(request: ChatCompletionRequest, worker: WorkerInfo) -> float | None:
    """The model's own penalty belongs to its own way: a model that samples has none when it is asked to be greedy."""
    if request.repetition_penalty is None and request.temperature == 0 and worker.sampling.temperature > 0:
        return 1.0
    return request.repetition_penalty


def _num_logprobs(request: ChatCompletionRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise InvalidRequest("top_logprobs is only allowed when logprobs is true.", param="top_logprobs")
    return None


def _min_tokens(request: ChatCompletionRequest, most: int) -> int | None:
    if request.min_tokens is not None and request.min_tokens > most:
        raise InvalidRequest(
            f"min_tokens is {request.min_tokens}, but the answer has at most {most} tokens.", param="min_tokens"
        )
    return request.min_tokens


def _max_tokens(request: ChatCompletionRequest, worker: WorkerInfo) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise InvalidRequest(
            f"max_tokens is {old} and max_completion_tokens is {new}; send one of them.", param="max_completion_tokens"
        )
    param = "max_tokens" if new is None else "max_completion_tokens"
    asked = old if new is None else new
    if asked is not None and asked > worker.max_model_len:
        raise InvalidRequest(
            f"{param} is {asked}, but the model's whole context is {worker.max_model_len} tokens.", param=param
        )
    return asked
